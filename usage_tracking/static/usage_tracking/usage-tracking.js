/**
 * django-usage-tracking in the browser: client, stores, custom elements. One file, without dependencies.
 *
 * @typedef {import("./openapi.js").components["schemas"]} Schemas
 * @typedef {Schemas["Usage"]} Usage
 * @typedef {Schemas["History"]} History
 * @typedef {Schemas["Limits"] & {etag: string}} Limits
 * @typedef {{organization?: string | number | null, signal?: AbortSignal}} Options default: the active organization
 * @typedef {Options & {meter?: string, since?: Date | string, until?: Date | string,
 *   bucket?: "hour" | "day" | "week" | "month", last?: number}} HistoryOptions
 * @typedef {Options & {meter?: string, reason?: string}} ResetOptions
 * @typedef {Options & Schemas["PatchedLimitsChange"] & {ifMatch?: string}} LimitsOptions `ifMatch`: an `etag`
 * @typedef {{type?: string, title?: string, detail?: string, errors?: Record<string, string[]>,
 *   [member: string]: unknown}} Problem RFC 9457
 */

// -- errors --

/** What the API answered instead; `status` is 0 when it did not answer. */
export class UsageError extends Error {
  /** @param {number} status @param {Problem} [problem] @param {unknown} [cause] */
  constructor(status, problem = {}, cause) {
    super(problem.detail || problem.title || `The usage API answered ${status || "nothing"}.`, { cause });
    this.name = new.target.name;
    this.status = status;
    this.problem = problem;
    /** What is wrong with which field. */
    this.errors = problem.errors ?? {};
  }
}
/** 400 */
export class InvalidInputError extends UsageError {}
/** 401 */
export class NotSignedInError extends UsageError {}
/** 403 */
export class NotAllowedError extends UsageError {}
/** 404: there is none, or it is none of the user's. */
export class NotFoundError extends UsageError {}
/** 409, 412: somebody else was faster. */
export class ConflictError extends UsageError {}
/** 429 */
export class QuotaExceededError extends UsageError {}
/** No answer, or none of the API's. */
export class ConnectionError extends UsageError {}

const ERRORS = {
  400: InvalidInputError,
  401: NotSignedInError,
  403: NotAllowedError,
  404: NotFoundError,
  409: ConflictError,
  412: ConflictError,
  429: QuotaExceededError,
};

// -- client --

const find = (selector) => globalThis.document?.querySelector(selector);

// From a form (CSRF_USE_SESSIONS, CSRF_COOKIE_HTTPONLY), else from Django's cookie.
const csrfToken = () =>
  find("[name=csrfmiddlewaretoken]")?.value ?? /csrftoken=([^;]*)/.exec(globalThis.document?.cookie)?.[1] ?? "";

/**
 * A client of the HTTP API. Its methods reject with a UsageError, or with the reason of an aborted `signal`.
 *
 * @param {{baseUrl?: string, fetch?: typeof globalThis.fetch, csrf?: string | (() => string)}} [options]
 *   `baseUrl`: where the API is (default: `<meta name="usage-tracking-api" content="…">`, else `/usage/`);
 *   `csrf`: a token, or what returns one (default: from a form of the page or from the cookie)
 */
export function createUsageClient({ baseUrl, fetch = globalThis.fetch, csrf = csrfToken } = {}) {
  async function ask(method, path, signal, body, ifMatch) {
    const base = baseUrl ?? find("meta[name=usage-tracking-api]")?.content ?? "/usage/";
    const headers = { Accept: "application/json" };
    if (body) {
      headers["Content-Type"] = "application/json";
      headers["X-CSRFToken"] = csrf.call ? csrf() : csrf;
      if (ifMatch) headers["If-Match"] = ifMatch;
    }
    const timeout = AbortSignal.timeout(15000);
    let response, answer;
    try {
      response = await fetch.call(globalThis, base.replace(/\/?$/, "/") + path, {
        method,
        headers,
        credentials: "same-origin",
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        body: body && JSON.stringify(body),
      });
      if (/json/.test(response.headers.get("Content-Type"))) answer = await response.json();
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw new ConnectionError(0, {}, error);
    }
    if (!response.ok) throw new (ERRORS[response.status] ?? UsageError)(response.status, answer);
    if (!answer) throw new ConnectionError(response.status);
    if (body) refreshAll();
    const etag = response.headers.get("ETag");
    return etag ? { ...answer, etag } : answer;
  }

  const pathOf = async ({ organization, signal }, rest) =>
    `organizations/${encodeURIComponent(organization ?? (await client.getUsage({ signal })).organization)}/${rest}`;

  const client = {
    /** What an organization has used. @param {Options} [options] @returns {Promise<Usage>} */
    async getUsage(options = {}) {
      return ask("GET", options.organization == null ? "current/" : await pathOf(options, ""), options.signal);
    },
    /** The same over time, oldest first. @param {HistoryOptions} [options] @returns {Promise<History>} */
    async getUsageHistory({ organization, signal, ...asked } = {}) {
      const query = new URLSearchParams();
      for (const [name, value] of Object.entries(asked))
        if (value != null) query.set(name, value.toISOString?.() ?? value);
      return ask("GET", await pathOf({ organization, signal }, `history/?${query}`), signal);
    },
    /** End the open period now. @param {ResetOptions} [options] @returns {Promise<Usage>} */
    async resetUsage({ organization, signal, ...body } = {}) {
      return ask("POST", await pathOf({ organization, signal }, "reset/"), signal, body);
    },
    /** Limits, and where they come from. @param {Options} [options] @returns {Promise<Limits>} */
    async getLimits(options = {}) {
      return ask("GET", await pathOf(options, "limits/"), options.signal);
    },
    /** Change limits, plan or calendar. @param {LimitsOptions} options @returns {Promise<Limits>} */
    async updateLimits({ organization, signal, ifMatch, ...body }) {
      return ask("PATCH", await pathOf({ organization, signal }, "limits/"), signal, body, ifMatch);
    },
  };
  return client;
}

/** @typedef {ReturnType<typeof createUsageClient>} UsageClient */

const defaultClient = createUsageClient();

// -- stores --

/**
 * The store contract of nanostores 1.
 *
 * @template T
 * @typedef {{get: () => T, set: (value: T) => void, value: T, init: T, lc: number, off: () => void,
 *   listen: (listener: (value: any, oldValue?: any) => void) => () => void,
 *   subscribe: (listener: (value: any, oldValue?: any) => void) => () => void,
 *   notify: (oldValue?: any) => void, eq: (oldValue: any, newValue: any) => boolean}} Store
 */

/** @template T @param {T} init @returns {Store<T>} */
function store(init) {
  let listeners = [];
  const $store = {
    init,
    value: init,
    lc: 0,
    eq: Object.is,
    off() {},
    get() {
      if (!$store.lc) $store.listen(() => {})(); // who waits for the first listener hears of it
      return $store.value;
    },
    set(value) {
      const old = $store.value;
      if ($store.eq(old, value)) return;
      $store.value = value;
      $store.notify(old);
    },
    notify(old) {
      (globalThis.nanostoresGlobal ||= { epoch: 0 }).epoch++; // tells computed stores that something has changed
      for (const listener of [...listeners]) if (listeners.includes(listener)) listener($store.value, old);
    },
    listen(listener) {
      const own = (...values) => listener(...values); // the same one may listen twice
      $store.lc = listeners.push(own);
      return () => {
        if (!listeners.includes(own)) return;
        listeners = listeners.filter((other) => other !== own);
        if (!--$store.lc) $store.off();
      };
    },
    subscribe(listener) {
      const leave = $store.listen(listener);
      listener($store.value);
      return leave;
    },
  };
  return $store;
}

/**
 * Stores of what the last `fetchUsage()` and `fetchUsageHistory()` have found. These never reject: they resolve to
 * what was found, or to undefined when that failed (see `$error`) or a later call took their place.
 *
 * @param {UsageClient} [client]
 */
export function createUsageStores(client = defaultClient) {
  const $usage = store(/** @type {Usage | null} */ (null));
  const $history = store(/** @type {History | null} */ (null));
  const $loading = store(false);
  const $error = store(/** @type {UsageError | null} */ (null));
  let running = 0;

  function fetcher($found, method) {
    let latest = new AbortController();
    return async (options = {}) => {
      latest.abort();
      const { signal } = (latest = new AbortController());
      const both = options.signal ? AbortSignal.any([signal, options.signal]) : signal;
      $loading.set(++running > 0);
      try {
        const found = await client[method]({ ...options, signal: both });
        if (both.aborted) return;
        $error.set(null);
        $found.set(found);
        return found;
      } catch (error) {
        if (!both.aborted) $error.set(error);
      } finally {
        $loading.set(--running > 0);
      }
    };
  }

  /** @type {(options?: Options) => Promise<Usage | undefined>} */
  const fetchUsage = fetcher($usage, "getUsage");
  /** @type {(options?: HistoryOptions) => Promise<History | undefined>} */
  const fetchUsageHistory = fetcher($history, "getUsageHistory");
  return { $usage, $history, $loading, $error, fetchUsage, fetchUsageHistory };
}

export const { $usage, $history, $loading, $error, fetchUsage, fetchUsageHistory } = createUsageStores();

// -- words --

/** What all elements say. `meter:NAME` and `unit:NAME` name a meter. @type {Record<string, string>} */
export const defaultStrings = {
  loading: "Loading…",
  of: "of {limit} {unit}",
  left: "{n} left",
  over: "{n} over the limit",
  resets: "Resets {date}",
  expired: "Ended {date}, waiting for its reset",
  noReset: "No automatic reset",
  unlimited: "Unlimited",
  warning: "Getting close to the limit",
  critical: "Almost used up",
  exceeded: "Limit reached",
  upgrade: "Upgrade",
  plan: "Plan",
  included: "Included",
  excluded: "Not included",
  noFeatures: "This plan has no features of its own.",
  overTime: "{meter} over time",
  empty: "Nothing was used in this time.",
  week: "Week of {date}",
  refused: "{n} refused",
  up: "Up {n}",
  down: "Down {n}",
  unchanged: "Unchanged",
  timeRange: "Time range",
  "7d": "7 days",
  "30d": "30 days",
  "90d": "90 days",
  "1y": "1 year",
  all: "All",
  chartType: "Chart type",
  line: "Line",
  bar: "Bar",
  area: "Area",
  retry: "Try again",
  signedOut: "Sign in to see the usage.",
  notFound: "There is no such organization.",
  offline: "There is no connection.",
  failed: "Usage cannot be shown right now.",
  stale: "This is not up to date.",
  invalid: "{name} cannot be {value}.",
  "meter:api": "API requests",
  "unit:api": "requests",
};

const escape = (text) => String(text).replace(/[&<>"']/g, (found) => `&#${found.charCodeAt(0)};`);
const kebab = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

// -- elements --

// What a property may be: how its attribute is read, and what is valid. NaN never is.
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const toCount = (text) => (/^\d+$/.test(text) ? Number(text) : NaN);
const oneOf = (...choices) => [String, (value) => choices.includes(value)];
const COUNT = [toCount, isCount];
const LIMIT = [(text) => (text === "unlimited" ? null : toCount(text)), (value) => value === null || isCount(value)];
const TEXT = [String, (value) => /string|number/.test(typeof value) && value === value];
const FLAG = [(text) => text !== "false", (value) => typeof value === "boolean"];
const OBJECT = [JSON.parse, (value) => typeof value === "object"];

// Elements that ask the same within five seconds share the answer.
const FRESH = 5000;
let answers = new WeakMap();

function shared(client, method, options) {
  if (!answers.has(client)) answers.set(client, {});
  const known = answers.get(client);
  const key = method + JSON.stringify(options);
  if (!(Date.now() - known[key]?.at < FRESH)) known[key] = { at: Date.now(), answer: client[method](options) };
  return known[key].answer;
}

function refreshAll() {
  answers = new WeakMap();
  globalThis.document?.dispatchEvent(new Event("usage-changed"));
}

// Node has no elements, but a use for the client and the stores.
class UsageElement extends (globalThis.HTMLElement ?? Object) {
  static properties = { organization: TEXT, client: OBJECT, refreshSeconds: COUNT, strings: OBJECT };

  static get observedAttributes() {
    return Object.keys(this.properties).map(kebab);
  }

  _values = {};
  _upgraders = 0;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [(styles ??= sheet())];
    for (const [name, kind] of Object.entries(this.constructor.properties)) {
      const early = this[name]; // set before the element was defined
      Object.defineProperty(this, name, {
        get: () => this._values[name],
        set: (value) => {
          this._values[name] = kind === LIMIT ? value : (value ?? undefined);
          this._update();
        },
      });
      this[name] = early;
    }
  }

  attributeChangedCallback(attribute, _, text) {
    const name = attribute.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
    try {
      this[name] = text === null ? undefined : this.constructor.properties[name][0](text);
    } catch {
      this[name] = NaN;
    }
  }

  connectedCallback() {
    const { signal } = (this._life = new AbortController());
    const refresh = () => document.hidden || this._load();
    document.addEventListener("visibilitychange", refresh, { signal });
    document.addEventListener("usage-changed", () => this._load(), { signal });
    addEventListener("online", refresh, { signal });
    this._update();
  }

  disconnectedCallback() {
    this._life.abort();
    clearTimeout(this._timer);
    this._asked = undefined;
  }

  // An upgrade button is for those who listen.
  addEventListener(type, ...more) {
    super.addEventListener(type, ...more);
    if (type === "upgrade") this._upgraders++, this._update();
  }

  removeEventListener(type, ...more) {
    super.removeEventListener(type, ...more);
    if (type === "upgrade") this._upgraders--, this._update();
  }

  // Draw once for all changes that are made together; ask first if they ask for something else.
  _update() {
    this._pending ??= queueMicrotask(() => {
      this._pending = undefined;
      if (!this.isConnected) return;
      const asked = JSON.stringify(this._question());
      if (asked !== this._asked || this._client !== this._askedOf) {
        this._asked = asked;
        this._askedOf = this._client;
        this._answer = this._error = undefined;
        this._load();
      }
      this._wait();
      this._draw();
    }) ?? true;
  }

  get _client() {
    return this._values.client ?? defaultClient;
  }

  get _wrong() {
    const wrong = ([name, [, isValid]]) => this._values[name] !== undefined && !isValid(this._values[name]);
    return Object.entries(this.constructor.properties).find(wrong)?.[0];
  }

  // What to ask the API for; nothing when the properties say it all.
  _question() {
    return this._wrong ? undefined : { organization: this._values.organization };
  }

  async _ask(question) {
    return shared(this._client, "getUsage", question);
  }

  async _load() {
    const question = this._question();
    if (!question) return;
    const asked = JSON.stringify(question);
    const client = this._client;
    const isCurrent = () => asked === this._asked && client === this._client;
    try {
      const answer = await this._ask(question);
      if (!isCurrent()) return;
      this._answer = answer;
      this._error = undefined;
    } catch (error) {
      if (!isCurrent()) return;
      this._error = error;
      // Whoever may not see it any more does not go on seeing it.
      if (error.status && error.status < 500) this._answer = undefined;
    }
    this._draw();
  }

  _wait() {
    clearTimeout(this._timer);
    const refresh = async () => {
      if (!document.hidden) await this._load();
      if (this.isConnected) this._wait();
    };
    if (this._values.refreshSeconds)
      this._timer = setTimeout(refresh, Math.max(this._values.refreshSeconds * 1000, FRESH));
  }

  // -- what it says; all of it escaped --

  get _language() {
    try {
      return Intl.getCanonicalLocales(this.closest("[lang]")?.lang || undefined)[0];
    } catch {
      return undefined;
    }
  }

  _say(key, values = {}) {
    const text = this._values.strings?.[key] ?? defaultStrings[key] ?? "";
    return escape(text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "").trim());
  }

  get _meter() {
    return this._values.meter ?? "api";
  }

  get _label() {
    const words = this._meter.replace(/[_-]/g, " ");
    return this._say(`meter:${this._meter}`) || escape(words[0]?.toUpperCase() + words.slice(1));
  }

  _number(value, options) {
    return escape(new Intl.NumberFormat(this._language, options).format(value));
  }

  _percent(value) {
    return this._number(value / 100, { style: "percent" });
  }

  _card(title, badge, icon, inner, more = "") {
    const extra = badge ? `<span class="badge" part="badge">${svgIcon(icon)}${badge}</span>` : "";
    return `<section class="card" part="card" aria-label="${title}" ${more}><header><h2 part="title">${title}</h2>${extra}</header>${inner}</section>`;
  }

  _failure(text, retry) {
    const button = retry ? `<button part="retry" data-key="retry">${this._say("retry")}</button>` : "";
    return `<section class="card failure" part="card"><p part="error" role="alert">${text}</p>${button}</section>`;
  }

  _reason() {
    const { status, problem } = this._error;
    const known = { 0: "offline", 401: "signedOut", 404: "notFound" }[status];
    return !known && status < 500 && problem.detail ? escape(problem.detail) : this._say(known ?? "failed");
  }

  _draw() {
    if (!this.isConnected) return;
    const wrong = this._wrong;
    let drawn;
    if (wrong) {
      const name = kebab(wrong);
      drawn = this._failure(this._say("invalid", { name, value: this.getAttribute(name) ?? this._values[wrong] }));
    } else if (!this._question() || this._answer) {
      drawn = this._content();
      if (this._error) drawn += this._failure(`${this._say("stale")} ${this._reason()}`, true);
    } else if (this._error) drawn = this._failure(this._reason(), true);
    else drawn = `<section class="card busy" part="card skeleton" aria-busy="true" aria-label="${this._say("loading")}"><i></i><i></i><i></i></section>`;
    if (drawn === this._drawn) return;
    this._drawn = drawn;
    const focused = this.shadowRoot.activeElement?.dataset.key;
    this.shadowRoot.innerHTML = drawn;
    for (const element of this.shadowRoot.querySelectorAll("[data-key]")) {
      const { key } = element.dataset;
      element.addEventListener("click", (event) => (key === "retry" ? refreshAll() : this._clicked(key, event)));
      if (key === focused) element.focus();
    }
    this._drew(this.shadowRoot);
  }

  _drew() {}
}

const ICONS = {
  warning: "M8 2 14.5 13.5h-13zM8 6.5v3M8 11.4v.1",
  critical: "M8 1.7a6.3 6.3 0 1 1-.1 0zM8 4.8v4M8 11.1v.1",
  exceeded: "M5.4 1.7h5.2l3.7 3.7v5.2l-3.7 3.7H5.4l-3.7-3.7V5.4zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
  included: "m3 8.6 3.3 3.3L13 4.8",
  up: "M4 12 12 4M5.5 4H12v6.5",
  down: "m4 4 8 8M5.5 12H12V5.5",
};

const svgIcon = (name) =>
  ICONS[name] ? `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[name]}"/></svg>` : "";

/** `<api-usage-card>`: used and limit of a meter. */
export class ApiUsageCard extends UsageElement {
  static properties = {
    ...UsageElement.properties,
    used: COUNT,
    limit: LIMIT,
    meter: TEXT,
    warningThreshold: COUNT,
    upgradeUrl: TEXT,
  };

  _question() {
    return this._values.used === undefined ? super._question() : undefined;
  }

  get _usage() {
    const { used, limit = null } = this._values;
    return used === undefined ? this._answer.meters[this._meter] : { used, limit };
  }

  _content() {
    if (!this._usage) return this._failure(this._say("invalid", { name: "meter", value: this._meter }));
    const { used, limit, resets_at: resetsAt } = this._usage;
    const isUnlimited = limit === null;
    const percentage = limit ? Math.floor((used * 100) / limit) : 100;
    const near = { exceeded: 100, critical: 90, warning: this._values.warningThreshold ?? this._answer?.warning_threshold ?? 80 };
    const reached = Object.keys(near).find((level) => percentage >= near[level]);
    const level = isUnlimited ? "unlimited" : !limit && !used ? "excluded" : (reached ?? "normal");
    const isNear = level === reached;
    const badge = isNear || level === "normal" ? this._percent(percentage) : this._say(level);
    const n = this._number(Math.abs(limit - used));
    const unit = this._say(`unit:${this._meter}`);
    const figure = `<strong>${this._number(used)}</strong> ${isUnlimited ? unit : this._say("of", { limit: this._number(limit), unit })}`;
    const notes =
      (isNear ? `<strong part="status">${this._say(used > limit ? "over" : level, { n })}</strong> ` : "") +
      (used < limit ? `<span>${this._say("left", { n })}</span> ` : "") +
      (resetsAt === undefined ? "" : `<span>${this._reset(resetsAt)}</span>`);
    const label = `part="upgrade" data-key="upgrade">${this._say("upgrade")}`;
    const url = this._values.upgradeUrl;
    const upgrade = url ? `<a href="${escape(url)}" ${label}</a>` : this._upgraders ? `<button ${label}</button>` : "";
    return this._card(
      this._label,
      badge,
      level,
      `<p class="figure" part="figure">${figure}</p>${isUnlimited ? "" : this._bar(used, limit, badge)}<p class="notes" part="notes">${notes}</p>${isUnlimited ? "" : upgrade}`,
      `data-level="${level}"`,
    );
  }

  _bar(used, limit, badge) {
    const share = used < limit ? (used * 100) / limit : used ? 100 : 0;
    const mark = `${(limit * 100) / used}%`;
    const over = used > limit ? `<rect class="over" x="${mark}" width="100%" height="10"/><line x1="${mark}" x2="${mark}" y2="10"/>` : "";
    return `<div class="bar" part="bar" role="img" aria-label="${badge}"><svg width="100%" height="10"><rect class="track" width="100%" height="10" rx="5"/><rect class="fill" part="fill" width="${share}%" height="10" rx="5"/>${over}</svg></div>`;
  }

  _reset(resetsAt) {
    if (resetsAt === null) return this._say("noReset");
    const moment = new Date(resetsAt);
    const timeStyle = moment.getHours() || moment.getMinutes() ? "short" : undefined;
    const date = moment.toLocaleString(this._language, { dateStyle: "medium", timeStyle });
    return this._say(moment > Date.now() ? "resets" : "expired", { date });
  }

  _clicked(_, event) {
    const { used, limit } = this._usage;
    const detail = { meter: this._meter, used, limit };
    const upgrade = new CustomEvent("upgrade", { bubbles: true, composed: true, cancelable: true, detail });
    if (!this.dispatchEvent(upgrade)) event.preventDefault();
  }
}

/** `<feature-access-card>`: the plan, and what it includes. */
export class FeatureAccessCard extends UsageElement {
  static properties = { ...UsageElement.properties, features: OBJECT, featureLabels: OBJECT };

  _question() {
    return this._values.features ? undefined : super._question();
  }

  _content() {
    const labels = this._values.featureLabels ?? {};
    const features = this._values.features ?? this._answer.features;
    const rows = Object.keys({ ...labels, ...features }).map((name) => {
      const value = features[name];
      const isPlain = !value || value === true;
      const text = isPlain ? this._say(value ? "included" : "excluded") : value.toFixed ? this._number(value) : escape(value);
      return `<li part="feature" ${value ? "" : 'class="excluded"'}>${svgIcon(value ? "included" : "") || "–"} ${escape(labels[name] ?? name)} <span>${text}</span></li>`;
    });
    const list = rows.length ? `<ul>${rows.join("")}</ul>` : `<p class="notes">${this._say("noFeatures")}</p>`;
    return this._card(this._say("plan"), escape(this._answer?.plan ?? ""), "", list, 'data-level="plan"');
  }
}

// -- charts: the geometry of charts.py --

const HEIGHT = 200;
const MAX_MARKS = 90;
const DAY = 86400000;
const DAYS = { "7d": 7, "30d": 30, "90d": 90, "1y": 371, all: Infinity };
const CHART_TYPES = ["line", "bar", "area"];

const sum = (values) => values.reduce((total, value) => total + value, 0);

function merged(points) {
  const size = Math.ceil(points.length / MAX_MARKS);
  const marks = [];
  for (let end = points.length; end > 0; end -= size) {
    const group = points.slice(Math.max(end - size, 0), end);
    marks.unshift({
      start: group[0].start,
      end: group.at(-1).end,
      used: sum(group.map(({ used }) => used)),
      refused: sum(group.map(({ refused = 0 }) => refused)),
    });
  }
  return marks;
}

// By how many percent the later half is above the earlier one; the last value is still running.
function trend(values) {
  const half = (values.length - 1) >> 1;
  const earlier = sum(values.slice(0, half));
  return earlier ? Math.trunc((sum(values.slice(-1 - half, -1)) * 100) / earlier - 100) : null;
}

// Four such steps reach the highest value.
function stepOf(highest) {
  for (let power = 1; ; power *= 10) for (const step of [1, 2, 5]) if (step * power * 4 >= highest) return step * power;
}

/** `<usage-history-chart>`: what was used, over time. */
export class UsageHistoryChart extends UsageElement {
  static properties = {
    ...UsageElement.properties,
    data: OBJECT,
    meter: TEXT,
    timeRange: oneOf(...Object.keys(DAYS)),
    chartType: oneOf(...CHART_TYPES),
    timeRangeControls: FLAG,
    chartTypeControls: FLAG,
  };

  get _range() {
    return this._values.timeRange ?? "30d";
  }

  _question() {
    const question = this._values.data ? undefined : super._question();
    return question && { ...question, meter: this._meter, range: this._range };
  }

  async _ask({ range, ...question }) {
    const ask = (slice) => shared(this._client, "getUsageHistory", { ...question, ...slice });
    const last = (days) => (days > MAX_MARKS ? { bucket: "week", last: Math.ceil(days / 7) } : { bucket: "day", last: days });
    if (range !== "all") return ask(last(DAYS[range]));
    // Nobody says when usage began: look for it in months, then take the finest buckets that are not too many.
    const months = await ask({ bucket: "month", since: "2001-01-01T00:00:00Z" });
    const points = months.points.slice(months.points.findIndex(({ used, refused }) => used || refused));
    const days = Math.ceil((Date.now() - Date.parse(points[0].start)) / DAY) + 1;
    return days > 7 * MAX_MARKS ? { ...months, points } : ask(last(days));
  }

  get _points() {
    const { data, timeRange, timeRangeControls } = this._values;
    const points = data ? (data.points ?? data) : this._answer.points;
    if (!data || !(timeRange || timeRangeControls)) return points;
    const since = Date.parse(points.at(-1)?.start) - (DAYS[this._range] - 0.5) * DAY;
    return points.filter(({ start }) => Date.parse(start) > since);
  }

  _date({ start, end }, isShort) {
    const timeZone = (this._values.data ?? this._answer).time_zone;
    const days = (Date.parse(end) - Date.parse(start)) / DAY;
    const options = { timeZone: timeZone ?? "UTC", month: "short" };
    if (days < 27) options.day = "numeric";
    if (days < 0.9) options.hour = "numeric";
    if (days > 27 || !isShort) options.year = "numeric";
    // Without a zone the date is the one that is written.
    const moment = timeZone ? new Date(start) : new Date(`${start.slice(0, 10)}T00:00Z`);
    const date = moment.toLocaleString(this._language, options);
    return days > 6 && days < 8 && !isShort ? this._say("week", { date }) : escape(date);
  }

  _content() {
    const { chartType = "line", timeRangeControls, chartTypeControls } = this._values;
    const marks = (this._marks = merged(this._points));
    const values = marks.map(({ used }) => used);
    if (!values.every(isCount) || !marks.every(({ start, end }) => Date.parse(start) < Date.parse(end)))
      return this._failure(this._say("invalid", { name: "data", value: JSON.stringify(this._values.data) }));
    const total = sum(values);
    const change = trend(values);
    const direction = change > 0 ? "up" : change < 0 ? "down" : "unchanged";
    const badge = change === null ? "" : this._say(direction, { n: this._percent(Math.abs(change)) });
    const title = this._say("overTime", { meter: this._label });
    const choice = (name, choices, chosen) => {
      const button = (each) => `<button data-key="${name}:${each}" aria-pressed="${each === chosen}">${this._say(each)}</button>`;
      return `<div class="segments" role="group" aria-label="${this._say(name)}">${choices.map(button).join("")}</div>`;
    };
    return this._card(
      title,
      badge,
      direction,
      `<p class="figure" part="figure"><strong>${this._number(total)}</strong> ${this._say(`unit:${this._meter}`)}</p><div class="controls" part="controls">${timeRangeControls ? choice("timeRange", Object.keys(DAYS), this._range) : ""}${chartTypeControls ? choice("chartType", CHART_TYPES, chartType) : ""}</div>${total ? this._plot(values, chartType, title) : `<p class="empty" part="empty">${this._say("empty")}</p>`}`,
    );
  }

  _plot(values, type, title) {
    const count = values.length;
    const step = stepOf(Math.max(...values));
    const top = step * Math.ceil(Math.max(...values) / step);
    const width = 100 / count;
    const x = (index) => ((index + 0.5) * width).toFixed(2);
    const y = (value) => (HEIGHT - (value * HEIGHT) / top).toFixed(2);
    let grid = "", labels = "", dates = "";
    for (let value = 0; value <= top; value += step) {
      grid += `<line x2="100%" y1="${y(value)}" y2="${y(value)}"/>`;
      labels += `<text x="36" y="${y(value)}" dy="12">${this._number(value, { notation: top < 10000 ? "standard" : "compact" })}</text>`;
    }
    const apart = Math.ceil(count / 7);
    for (let index = count - 1; index >= 0; index -= apart)
      dates += `<text class="${((count - 1 - index) / apart) % 2 ? "minor" : ""}" x="${x(index)}%" y="220">${this._date(this._marks[index], true)}</text>`;
    const line = count > 1 ? `M${values.map((value, index) => `${x(index)} ${y(value)}`).join("L")}` : `M0 ${y(values[0])}H100`;
    const area = type === "area" ? `<path class="area" d="${line}V${HEIGHT}H${count > 1 ? x(0) : 0}Z"/>` : "";
    const path = `<svg width="100%" height="${HEIGHT}" viewBox="0 0 100 ${HEIGHT}" preserveAspectRatio="none">${area}<path class="line" part="line" d="${line}"/></svg>`;
    const marks = values.map((value, index) => {
      const tall = value && Math.max(HEIGHT - y(value), 1.5);
      const bar = `<rect class="mark" part="mark" x="${(index + 0.15) * width}%" y="${HEIGHT - tall}" width="${0.7 * width}%" height="${tall}" rx="2"/>`;
      return `<g><rect class="column" x="${index * width}%" width="${width}%" height="${HEIGHT}"/>${type === "bar" ? bar : `<circle cx="${x(index)}%" cy="${y(value)}" r="4"/>`}</g>`;
    });
    return `<div class="plot" part="plot" dir="ltr"><svg class="values" width="44" height="232" aria-hidden="true">${labels}</svg><div class="drawing" data-key="plot" tabindex="0" role="slider" aria-label="${title}" aria-valuemin="1" aria-valuemax="${count}" aria-valuenow="${count}" aria-valuetext="${this._describe(count - 1)}"><svg width="100%" height="232" aria-hidden="true"><svg y="8" width="100%" height="${HEIGHT}">${grid}${type === "bar" ? "" : path}${marks.join("")}${dates}</svg></svg><div class="tip" part="tooltip" hidden></div></div></div>`;
  }

  _describe(index) {
    const { used, refused } = this._marks[index];
    const also = refused ? `, ${this._say("refused", { n: this._number(refused) })}` : "";
    return `${this._date(this._marks[index])}: ${this._number(used)}${also}`;
  }

  _drew(root) {
    const plot = root.querySelector(".drawing");
    if (!plot) return;
    const tip = root.querySelector(".tip");
    const groups = root.querySelectorAll("g");
    const end = groups.length - 1;
    let active = -1;
    const show = (index) => {
      groups[active]?.removeAttribute("class");
      active = Math.min(index, end);
      tip.hidden = active < 0;
      if (active < 0) return;
      groups[active].setAttribute("class", "active");
      tip.innerHTML = this._describe(active);
      plot.ariaValueNow = active + 1;
      plot.ariaValueText = tip.textContent;
      const room = plot.clientWidth - tip.offsetWidth;
      tip.style.left = `${Math.min(Math.max(((active + 0.5) / (end + 1)) * plot.clientWidth - tip.offsetWidth / 2, 0), room)}px`;
    };
    const on = (type, act) => plot.addEventListener(type, act);
    on("pointermove", ({ clientX }) => {
      const { left, width } = plot.getBoundingClientRect();
      show(Math.max(Math.floor(((clientX - left) / width) * (end + 1)), 0));
    });
    on("pointerleave", () => show(-1));
    on("blur", () => show(-1));
    on("focus", () => plot.matches(":focus-visible") && show(end));
    on("keydown", (event) => {
      const at = active < 0 ? end : active;
      const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: end }[event.key];
      if (event.key === "Escape") show(-1);
      if (to === undefined) return;
      event.preventDefault();
      show(Math.max(to, 0));
    });
  }

  _clicked(key) {
    const [name, detail] = key.split(":");
    if (!detail) return;
    this[name] = detail;
    this.dispatchEvent(new CustomEvent(`${kebab(name)}-change`, { bubbles: true, composed: true, detail }));
  }
}

/** `<usage-dashboard>`: a card and a chart of each meter, and the plan. */
export class UsageDashboard extends UsageElement {
  static properties = { ...UsageElement.properties, layout: oneOf("stack", "grid"), meters: TEXT };

  _content() {
    const { layout = "stack", meters } = this._values;
    const names = meters?.split(/[\s,]+/).filter(Boolean) ?? Object.keys(this._answer.meters);
    const parts = 'exportparts="card,title,badge,figure,bar,fill,notes,status,error,retry,feature,controls,plot,line,mark,tooltip,empty"';
    const each = (tag, more) => names.map((name) => `<${tag} meter="${escape(name)}" ${more} ${parts}></${tag}>`).join("");
    return `<div class="dashboard ${layout}" part="dashboard"><div class="cards">${each("api-usage-card", "")}<feature-access-card ${parts}></feature-access-card></div>${each("usage-history-chart", "time-range-controls chart-type-controls")}</div>`;
  }

  _draw() {
    super._draw();
    const { client, organization, refreshSeconds, strings } = this._values;
    for (const child of this.shadowRoot.querySelectorAll("[exportparts]"))
      Object.assign(child, { client, organization, refreshSeconds, strings });
  }
}

// -- style: a constructed sheet passes `style-src 'self'`; names and colours are those of usage-tracking.css --

let styles;

function sheet() {
  const constructed = new CSSStyleSheet();
  constructed.replaceSync(CSS_TEXT);
  return constructed;
}

const color = (name, light, dark) => `--_${name}:var(--usage-${name},light-dark(${light},${dark}));`;

const CSS_TEXT = `
:host{${color("surface", "#fff", "#171a21")}${color("text", "#151922", "#eef0f4")}${color("muted", "#5a6372", "#a3abb9")}${color("border", "#e2e5ea", "#2a2f39")}${color("track", "#e9ecf1", "#2b303b")}${color("accent", "#3451d1", "#8fa6ff")}${color("on-accent", "#fff", "#10131a")}${color("warning", "#a34a00", "#f2b155")}${color("critical", "#bf2430", "#ff8a8a")}${color("included", "#17734a", "#5fcf9a")}--_radius:var(--usage-radius,14px);display:block;min-width:0;font-family:var(--usage-font,inherit)}
[hidden]{display:none}
.card{--_level:var(--_accent);box-sizing:border-box;height:100%;container-type:inline-size;padding:1.25rem 1.375rem;border:1px solid var(--_border);border-radius:var(--_radius);background:var(--_surface);color:var(--_text);font-size:.9375rem;line-height:1.5;font-variant-numeric:tabular-nums}
[data-level=warning]{--_level:var(--_warning)}
[data-level=critical],[data-level=exceeded]{--_level:var(--_critical)}
[data-level=excluded]{--_level:var(--_muted)}
[data-level=plan]{--_level:var(--_text)}
h2,p,ul{margin:0;padding:0}
header{display:flex;flex-wrap:wrap;align-items:center;justify-content:space-between;gap:.25rem .75rem}
h2{color:var(--_muted);font-size:.875rem;font-weight:550}
.badge{display:inline-flex;align-items:center;gap:.3rem;padding:.1rem .55rem;border-radius:99px;background:color-mix(in srgb,var(--_level) 11%,var(--_surface));color:var(--_level);font-size:.8125rem;font-weight:600}
.icon{width:.875rem;height:.875rem;fill:none;stroke:currentColor;stroke-width:1.7;stroke-linecap:round;stroke-linejoin:round}
.figure{margin-block:.625rem .875rem;color:var(--_muted)}
.figure strong{margin-inline-end:.15rem;color:var(--_text);font-size:1.875rem;font-weight:650;letter-spacing:-.02em;line-height:1.1}
.bar{margin-block-end:.875rem}
.bar svg{display:block;border-radius:5px}
:dir(rtl)>.bar svg{transform:scaleX(-1)}
.track{fill:var(--_track)}
.fill{fill:var(--_level)}
.over{fill:var(--_surface);fill-opacity:.35}
.bar line{stroke:var(--_surface);stroke-width:3}
.notes{display:flex;flex-wrap:wrap;gap:.125rem .875rem;color:var(--_muted);font-size:.8125rem}
.notes strong{color:var(--_level);font-weight:600}
button,a{display:inline-block;padding:.4rem .875rem;border:1px solid var(--_muted);border-radius:calc(var(--_radius)*.6);background:none;color:inherit;font:inherit;font-size:.875rem;font-weight:600;cursor:pointer;text-decoration:none}
[part=upgrade]{margin-block-start:.875rem}
ul{margin-block-start:.75rem;list-style:none}
li{display:flex;align-items:center;gap:.6rem;padding-block:.4rem}
li+li{border-block-start:1px solid var(--_border)}
li .icon{color:var(--_included)}
li span{margin-inline-start:auto;color:var(--_muted)}
li.excluded{color:var(--_muted)}
.controls,.segments{display:flex;flex-wrap:wrap;gap:.5rem}
.segments{gap:2px;margin-block-end:1rem;padding:3px;border-radius:11px;background:var(--_track)}
.segments button{padding:.15rem .65rem;border:0;border-radius:8px;color:light-dark(#4a5260,#b4bbc8);font-size:.8125rem}
.segments [aria-pressed=true]{background:var(--_surface);color:var(--_text);box-shadow:0 1px 2px rgb(0 0 0/.12)}
.plot{display:flex}
.plot svg{display:block;overflow:visible}
.drawing{position:relative;flex:1;min-width:0;border-radius:6px;touch-action:pan-y}
text{fill:var(--_muted);font-size:11px;text-anchor:middle}
.values text{text-anchor:end}
.plot line{stroke:var(--_border)}
.mark,circle,.area,.active .column{fill:var(--_accent)}
.area{fill-opacity:.12}
.line{fill:none;stroke:var(--_accent);stroke-width:2;stroke-linejoin:round;vector-effect:non-scaling-stroke}
circle{stroke:var(--_surface);stroke-width:2;opacity:0}
.active circle{opacity:1}
.column{fill:transparent}
.active .column{fill-opacity:.08}
.tip{position:absolute;top:-.75rem;left:0;box-sizing:border-box;width:max-content;max-width:100%;padding:.25rem .6rem;border-radius:8px;background:var(--_text);color:var(--_surface);font-size:.8125rem;pointer-events:none}
.empty{padding:2.5rem 1rem;color:var(--_muted);text-align:center}
.failure{display:flex;flex-wrap:wrap;align-items:center;justify-content:space-between;gap:.75rem;height:auto;color:var(--_muted)}
*+.failure{margin-block-start:.5rem}
i{display:block;width:60%;height:1.25rem;margin-block-end:.9rem;border-radius:6px;background:var(--_track);animation:pulse 1.6s infinite}
i:last-child{width:100%}
@keyframes pulse{50%{opacity:.45}}
.dashboard,.cards{display:grid;gap:1rem}
.cards,.grid{grid-template-columns:repeat(auto-fit,minmax(min(16rem,100%),1fr))}
.grid .cards{display:contents}
:focus-visible{outline:2px solid var(--_accent);outline-offset:2px}
@container (max-width:26rem){.minor{display:none}}
@media (prefers-reduced-motion){i{animation:none}}
@media (forced-colors:active){.fill,.mark{fill:Highlight}[aria-pressed=true]{outline:2px solid}}
`;

if (globalThis.customElements) {
  for (const [tag, element] of Object.entries({
    "api-usage-card": ApiUsageCard,
    "feature-access-card": FeatureAccessCard,
    "usage-history-chart": UsageHistoryChart,
    "usage-dashboard": UsageDashboard,
  }))
    if (!customElements.get(tag)) customElements.define(tag, element);
}
