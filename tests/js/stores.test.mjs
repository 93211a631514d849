// The stores of the module beside the real nanostores, @nanostores/react and React.
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { useStore } from "@nanostores/react";
import { atom, batched, computed, onMount } from "nanostores";
import { createElement } from "react";
import { renderToString } from "react-dom/server";

import { createUsageStores } from "../../usage_tracking/static/usage_tracking/usage-tracking.js";

const usage = (used) => ({ organization: 1, plan: "pro", features: {}, warning_threshold: 80, meters: { api: { used, limit: 100 } } });

/** Everything that a store does, written down. */
function protocol($store) {
  const heard = [];
  const hear = (name) => (value, old) => heard.push([name, value, old]);
  const leave = $store.listen(hear("a"));
  const again = $store.subscribe(hear("b"));
  heard.push($store.lc, $store.get(), $store.value);
  $store.set(2);
  $store.set(2);
  leave();
  leave();
  $store.set(3);
  const twice = hear("twice");
  const [one, two] = [$store.listen(twice), $store.listen(twice)];
  $store.set(4);
  one();
  $store.set(5);
  two();
  // Leaving while being told; joining while being told.
  const other = $store.listen(() => {
    other();
    heard.push("left");
  });
  $store.set(6);
  again();
  heard.push($store.lc, $store.get());
  $store.eq = (left, right) => left % 2 === right % 2;
  $store.set(8);
  heard.push($store.get());
  return heard;
}

describe("stores", () => {
  test("do what atoms do", () => {
    const { $usage } = createUsageStores({});
    $usage.set(1);
    assert.deepEqual(protocol($usage), protocol(atom(1)));
  });

  test("have all that an atom has", () => {
    const { $usage } = createUsageStores({});
    for (const [name, value] of Object.entries(atom(null))) assert.equal(typeof $usage[name], typeof value, name);
  });

  test("computed and batched stores follow them, listened to or not", async () => {
    const { $usage } = createUsageStores({});
    const $used = computed($usage, (found) => found?.meters.api.used ?? null);
    assert.equal($used.get(), null);
    $usage.set(usage(1));
    assert.equal($used.get(), 1);
    const heard = [];
    const leave = $used.subscribe((value) => heard.push(value));
    $usage.set(usage(2));
    $usage.set(usage(2));
    $usage.set(usage(3));
    leave();
    assert.deepEqual(heard, [1, 2, 3]);
    $usage.set(usage(4));
    assert.equal($used.get(), 4);
    const $late = batched([$usage, $used], (found, used) => [found.meters.api.used, used]);
    const told = new Promise((resolve) => $late.listen(resolve));
    $usage.set(usage(5));
    assert.deepEqual(await told, [5, 5]);
  });

  test("onMount hears of the first listener and the last", () => {
    const { $usage } = createUsageStores({});
    const heard = [];
    onMount($usage, () => {
      heard.push("mounted");
      return () => heard.push("unmounted");
    });
    $usage.get();
    const leave = $usage.listen(() => {});
    leave();
    assert.equal(heard[0], "mounted");
  });

  test("useStore reads them in React", () => {
    const { $usage, $loading } = createUsageStores({});
    const View = () => `${useStore($usage)?.meters.api.used} ${useStore($loading)}`;
    assert.equal(renderToString(createElement(View)), "undefined false");
    $usage.set(usage(7));
    assert.equal(renderToString(createElement(View)), "7 false");
  });
});

describe("fetchUsage", () => {
  test("fills the stores", async () => {
    const stores = createUsageStores({ getUsage: async () => usage(9) });
    const loading = [];
    stores.$loading.listen((value) => loading.push(value));
    assert.deepEqual(await stores.fetchUsage(), usage(9));
    assert.equal(stores.$usage.get().meters.api.used, 9);
    assert.deepEqual(loading, [true, false]);
    assert.equal(stores.$error.get(), null);
  });

  test("keeps the last answer when the next one fails, and says how", async () => {
    let answer = async () => usage(1);
    const stores = createUsageStores({ getUsage: () => answer() });
    await stores.fetchUsage();
    const failure = new Error("no");
    answer = async () => { throw failure; };
    assert.equal(await stores.fetchUsage(), undefined);
    assert.equal(stores.$error.get(), failure);
    assert.equal(stores.$usage.get().meters.api.used, 1);
    assert.equal(stores.$loading.get(), false);
    answer = async () => usage(2);
    await stores.fetchUsage();
    assert.equal(stores.$error.get(), null);
  });

  test("a later call takes the place of an earlier one", async () => {
    const answers = [];
    const stores = createUsageStores({
      getUsage: ({ organization, signal }) =>
        new Promise((resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
          answers[organization] = resolve;
        }),
    });
    const [first, second] = [stores.fetchUsage({ organization: 0 }), stores.fetchUsage({ organization: 1 })];
    assert.equal(await first, undefined);
    assert.equal(stores.$loading.get(), true);
    answers[1](usage(2));
    await second;
    assert.equal(stores.$usage.get().meters.api.used, 2);
    assert.equal(stores.$error.get(), null);
    assert.equal(stores.$loading.get(), false);
  });

  test("can be aborted", async () => {
    const stores = createUsageStores({ getUsage: ({ signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))) });
    const controller = new AbortController();
    const asked = stores.fetchUsage({ signal: controller.signal });
    controller.abort();
    assert.equal(await asked, undefined);
    assert.equal(stores.$error.get(), null);
  });
});
