// The client against a stand-in for `fetch`: what it sends, and what it makes of each answer.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import * as module from "../../usage_tracking/static/usage_tracking/usage-tracking.js";

const { createUsageClient, UsageError } = module;

/** A client whose requests are written down, each answered by the next of `answers`. */
function clientOf(...answers) {
  const sent = [];
  const fetch = async (url, options) => {
    sent.push({ url, ...options, body: options.body && JSON.parse(options.body) });
    const [status, body, headers] = answers.shift();
    const text = typeof body === "string" ? body : JSON.stringify(body);
    const type = typeof body === "string" ? "text/html" : status < 400 ? "application/json" : "application/problem+json";
    return new Response(text, { status, headers: { "Content-Type": type, ...headers } });
  };
  return [createUsageClient({ baseUrl: "/api/usage", fetch, csrf: () => "secret" }), sent];
}

const failure = (promise) => promise.then(() => assert.fail("it should have failed"), (error) => error);

describe("requests", () => {
  test("go to the active organization, or to the one that is named", async () => {
    const [client, sent] = clientOf([200, { organization: 7 }], [200, {}], [200, { organization: 7 }], [200, { points: [] }]);
    await client.getUsage();
    await client.getUsage({ organization: "a/b c" });
    await client.getUsageHistory({ meter: "tokens", since: new Date(0), bucket: "week", until: null });
    assert.deepEqual(sent.map(({ method, url }) => `${method} ${url}`), [
      "GET /api/usage/current/",
      "GET /api/usage/organizations/a%2Fb%20c/",
      "GET /api/usage/current/",
      "GET /api/usage/organizations/7/history/?meter=tokens&since=1970-01-01T00%3A00%3A00.000Z&bucket=week",
    ]);
    assert.ok(sent.every(({ credentials }) => credentials === "same-origin"));
  });

  test("that change something carry the CSRF token, and only those", async () => {
    const [client, sent] = clientOf([200, {}], [200, {}, { ETag: '"e"' }], [200, {}, { ETag: '"f"' }]);
    await client.resetUsage({ organization: 7, meter: "api", reason: "goodwill" });
    assert.equal((await client.getLimits({ organization: 7 })).etag, '"e"');
    assert.equal((await client.updateLimits({ organization: 7, limits: { api: null }, ifMatch: '"e"' })).etag, '"f"');
    const [reset, get, patch] = sent;
    assert.deepEqual([reset.method, reset.url, reset.body], ["POST", "/api/usage/organizations/7/reset/", { meter: "api", reason: "goodwill" }]);
    assert.equal(reset.headers["X-CSRFToken"], "secret");
    assert.equal(get.headers["X-CSRFToken"], undefined);
    assert.deepEqual([patch.method, patch.body, patch.headers["If-Match"]], ["PATCH", { limits: { api: null } }, '"e"']);
  });
});

describe("errors", () => {
  for (const [status, name] of Object.entries({
    400: "InvalidInputError",
    401: "NotSignedInError",
    403: "NotAllowedError",
    404: "NotFoundError",
    412: "ConflictError",
    429: "QuotaExceededError",
    500: "UsageError",
    503: "UsageError",
  }))
    test(`${status} is a ${name}`, async () => {
      const problem = { type: "about:blank", title: "No", status: +status, detail: "Because.", errors: { meter: ["?"] } };
      const error = await failure(clientOf([+status, problem])[0].getUsage());
      assert.ok(error instanceof module[name] && error instanceof UsageError);
      assert.deepEqual([error.name, error.status, error.message], [name, +status, "Because."]);
      assert.deepEqual([error.problem, error.errors], [problem, { meter: ["?"] }]);
    });

  test("an answer that is no problem is one all the same", async () => {
    const error = await failure(clientOf([502, "<h1>Bad gateway"])[0].getUsage());
    assert.deepEqual([error.name, error.status, error.errors], ["UsageError", 502, {}]);
  });

  test("a page instead of an answer, and no answer at all, are connection errors", async () => {
    assert.equal((await failure(clientOf([200, "<form>Log in"])[0].getUsage())).name, "ConnectionError");
    const client = createUsageClient({ fetch: () => Promise.reject(new TypeError("offline")) });
    const error = await failure(client.getUsage());
    assert.deepEqual([error.name, error.status, error.cause.message], ["ConnectionError", 0, "offline"]);
  });

  test("an aborted request rejects with the reason", async () => {
    const fetch = (_, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    const controller = new AbortController();
    const asked = failure(createUsageClient({ fetch }).getUsage({ signal: controller.signal }));
    controller.abort("changed my mind");
    assert.equal(await asked, "changed my mind");
  });
});
