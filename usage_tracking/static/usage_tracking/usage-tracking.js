/**
 * django-usage-tracking in the browser
 *
 * @import * as T from "./types.js"
 */

// -- errors

/** `status` is 0 when the API did not answer. */
export class UsageError extends Error {
  /** @param {number} status @param {T.Problem} [problem] @param {unknown} [cause] */
  constructor(status, problem = {}, cause) {
    super(problem.detail || problem.title || `The usage API answered ${status || "nothing"}.`, { cause });
    this.name = new.target.name;
    this.status = status;
    this.problem = problem;
    /** What is wrong with which field. */
    this.errors = problem.errors ?? {};
  }
}
export class InvalidInputError extends UsageError {}
export class NotSignedInError extends UsageError {}
export class NotAllowedError extends UsageError {}
/** There is none, or it is none of the user's. */
export class NotFoundError extends UsageError {}
/** Somebody else was faster. */
export class ConflictError extends UsageError {}
export class QuotaExceededError extends UsageError {}
/** No answer, or none of the API's. */
export class ConnectionError extends UsageError {}

const ERRORS = {
  400: InvalidInputError, 401: NotSignedInError, 403: NotAllowedError, 404: NotFoundError,
  409: ConflictError, 412: ConflictError, 429: QuotaExceededError,
};

// -- client

const page = globalThis.document;
const find = (selector) => page?.querySelector(selector);

// From a form, since scripts may not see the cookie.
const csrfToken = () =>
  find("[name=csrfmiddlewaretoken]")?.value ?? /\bcsrftoken=([^;]*)/.exec(page?.cookie)?.[1] ?? "";

/**
 * Its methods reject with a UsageError, or with the reason of an aborted `signal`.
 *
 * @param {T.ClientOptions} [options]
 */
export function createUsageClient({ baseUrl, fetch = globalThis.fetch, csrf = csrfToken } = {}) {
  async function ask(method, { organization, signal }, rest, body, ifMatch) {
    let path = "current/";
    if (rest !== undefined) {
      organization ??= (await client.getUsage({ signal })).organization;
      path = `organizations/${encodeURIComponent(organization)}/${rest}`;
    }
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
        signal: AbortSignal.any([signal ?? timeout, timeout]),
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
    return rest === "limits/" ? { ...answer, etag: response.headers.get("ETag") } : answer;
  }

  const client = {
    /** @param {T.Options} [options] @returns {Promise<T.Usage>} */
    async getUsage(options = {}) {
      return ask("GET", options, options.organization == null ? undefined : "");
    },
    /** Oldest first. @param {T.HistoryOptions} [options] @returns {Promise<T.History>} */
    async getUsageHistory({ organization, signal, ...asked } = {}) {
      const query = new URLSearchParams();
      for (const [name, value] of Object.entries(asked))
        if (value != null) query.set(name, value.toISOString?.() ?? value);
      return ask("GET", { organization, signal }, `history/?${query}`);
    },
    /** End the open period now. @param {T.ResetOptions} [options] @returns {Promise<T.Usage>} */
    async resetUsage({ organization, signal, ...body } = {}) {
      return ask("POST", { organization, signal }, "reset/", body);
    },
    /** @param {T.Options} [options] @returns {Promise<T.Limits>} */
    async getLimits(options = {}) {
      return ask("GET", options, "limits/");
    },
    /** @param {T.LimitsOptions} options @returns {Promise<T.Limits>} */
    async updateLimits({ organization, signal, ifMatch, ...body }) {
      return ask("PATCH", { organization, signal }, "limits/", body, ifMatch);
    },
  };
  return client;
}

/** @typedef {ReturnType<typeof createUsageClient>} UsageClient */

const defaultClient = createUsageClient();

// -- stores

/** @template T @param {T} init @returns {T.Store<T>} */
function store(init) {
  const listeners = [];
  const $store = {
    init,
    value: init,
    lc: 0,
    eq: Object.is,
    off() {},
    get() {
      if (!$store.lc) $store.listen(() => {})();
      return $store.value;
    },
    set(value) {
      const old = $store.value;
      if ($store.eq(old, value)) return;
      $store.value = value;
      $store.notify(old);
    },
    notify(old) {
      (globalThis.nanostoresGlobal ||= { epoch: 0 }).epoch++; // computed stores watch it
      for (const listener of [...listeners]) if (listeners.includes(listener)) listener($store.value, old);
    },
    listen(listener) {
      $store.lc = listeners.push(listener);
      return () => {
        const index = listeners.indexOf(listener);
        if (index < 0) return;
        listeners.splice(index, 1);
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
 * `fetchUsage()` and `fetchUsageHistory()` never reject, see `$error`.
 *
 * @param {UsageClient} [client]
 */
export function createUsageStores(client = defaultClient) {
  /** @type {T.Store<T.Usage | null>} */
  const $usage = store(null);
  /** @type {T.Store<T.History | null>} */
  const $history = store(null);
  const $loading = store(false);
  /** @type {T.Store<UsageError | null>} */
  const $error = store(null);
  let running = 0;

  function fetcher($found, method) {
    let latest = new AbortController();
    return async (options = {}) => {
      latest.abort();
      const { signal } = (latest = new AbortController());
      const both = AbortSignal.any([options.signal ?? signal, signal]);
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

  /** @type {(options?: T.Options) => Promise<T.Usage | undefined>} */
  const fetchUsage = fetcher($usage, "getUsage");
  /** @type {(options?: T.HistoryOptions) => Promise<T.History | undefined>} */
  const fetchUsageHistory = fetcher($history, "getUsageHistory");
  return { $usage, $history, $loading, $error, fetchUsage, fetchUsageHistory };
}

export const { $usage, $history, $loading, $error, fetchUsage, fetchUsageHistory } = createUsageStores();

// -- words

/** `meter:NAME` and `unit:NAME` name a meter. @type {Record<string, string>} */
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

// -- elements

// How text is read, what the property may be.
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const toCount = (text) => (/^\d+$/.test(text) ? Number(text) : text);
const oneOf = (...choices) => [String, (value) => choices.includes(value)];
const COUNT = [toCount, isCount];
const LIMIT = [(text) => (/^(null|unlimited)$/.test(text) ? null : toCount(text)), (value) => value === null || isCount(value)];
const TEXT = [String, (value) => /string|number/.test(typeof value) && value === value];
const FLAG = [(text) => text !== "false", (value) => typeof value === "boolean"];
const OBJECT = [JSON.parse, (value) => typeof value === "object"];

const FRESH = 5000;
let answers = new WeakMap();

let asked = 0;

function shared(client, method, options) {
  if (!answers.has(client)) answers.set(client, {});
  const known = answers.get(client);
  const key = method + JSON.stringify(options);
  if (!(Date.now() - known[key]?.at < FRESH)) known[key] = { at: (asked = Date.now()), answer: client[method](options) };
  return known[key].answer;
}

function refreshAll() {
  answers = new WeakMap();
  asked = 0;
  page?.dispatchEvent(new Event("usage-changed"));
}

class UsageElement extends (globalThis.HTMLElement ?? Object) {
  static properties = { organization: TEXT, client: OBJECT, refreshSeconds: COUNT, strings: OBJECT };

  static get observedAttributes() {
    return Object.keys(this.properties).map(kebab);
  }

  _values = {};
  _upgraders = new Set();
  _refresh = () => page.hidden || this._load();
  // Not while an answer is fresh.
  _changed = () => setTimeout(this._refresh, asked + FRESH + 50 - Date.now());

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [(styles ??= sheet(CSS_TEXT))];
    for (const [name, kind] of Object.entries(this.constructor.properties)) {
      const early = this[name]; // set before it was defined
      Object.defineProperty(this, name, {
        get: () => this._values[name],
        set: (value) => {
          try {
            if (value?.trim) value = kind[0](value);
          } catch {}
          this._values[name] = kind === LIMIT ? value : (value ?? undefined);
          this._update();
        },
      });
      this[name] = early;
    }
  }

  attributeChangedCallback(attribute, _, text) {
    this[attribute.replace(/-./g, ([, letter]) => letter.toUpperCase())] = text ?? undefined;
  }

  connectedCallback() {
    const { signal } = (this._life = new AbortController());
    page.addEventListener("visibilitychange", this._changed, { signal });
    page.addEventListener("usage-changed", this._changed, { signal });
    this._update();
  }

  disconnectedCallback() {
    this._life.abort();
    clearInterval(this._timer);
    this._asked = this._every = undefined;
  }

  addEventListener(type, listener, options) {
    super.addEventListener(type, listener, options);
    if (type === "upgrade") this._upgraders.add(listener);
    this._update();
  }

  removeEventListener(type, listener, options) {
    super.removeEventListener(type, listener, options);
    if (type === "upgrade") this._upgraders.delete(listener);
    this._update();
  }

  _update() {
    this._pending ??= queueMicrotask(() => {
      this._pending = undefined;
      if (!this.isConnected) return;
      const asked = JSON.stringify(this._question());
      const subject = asked?.replace(/,"range.*/, "");
      if (subject !== this._subject || this._client !== this._askedOf) this._answer = this._error = undefined;
      if (asked !== this._asked || this._client !== this._askedOf) {
        [this._asked, this._subject, this._askedOf] = [asked, subject, this._client];
        this._load();
      }
      const { refreshSeconds } = this._values;
      if (refreshSeconds !== this._every) {
        this._every = refreshSeconds;
        clearInterval(this._timer);
        if (refreshSeconds) this._timer = setInterval(this._refresh, Math.max(refreshSeconds * 1000, FRESH) + 50);
      }
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
    let answer, error;
    try {
      const late = new Promise((_, fail) => setTimeout(fail, 15000, new ConnectionError(0)));
      answer = await Promise.race([this._ask(question), late]);
    } catch (reason) {
      error = reason;
    }
    if (asked !== this._asked || client !== this._client) return;
    this._error = error;
    // What was seen stays, but for those who may not see it any more.
    if (answer || (error.status && error.status < 500)) this._answer = answer;
    this._draw();
  }

  // Text is escaped from here on.
  get _language() {
    try {
      return Intl.getCanonicalLocales(this.closest("[lang]")?.lang || undefined)[0];
    } catch {
      return undefined;
    }
  }

  _say(key, values = {}) {
    const text = this._values.strings?.[key] ?? defaultStrings[key] ?? "";
    return escape(text).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "").trim();
  }

  get _meter() {
    return this._values.meter || "api";
  }

  get _label() {
    const words = this._meter.replace(/[_-]/g, " ");
    return this._say(`meter:${this._meter}`) || escape(words[0]?.toUpperCase() + words.slice(1));
  }

  _number(value, options) {
    return new Intl.NumberFormat(this._language, options).format(value);
  }

  _percent(value) {
    return this._number(value / 100, { style: "percent" });
  }

  _card(title, badge, inner, more = "") {
    const extra = badge ? `<span part="badge">${badge}</span>` : "";
    return `<section part="card" aria-label="${title}" ${more}><header><h2 part="title">${title}</h2>${extra}</header>${inner}</section>`;
  }

  _failure(text, retry) {
    const button = retry ? `<button part="retry" data-key="retry">${this._say("retry")}</button>` : "";
    return `<section part="card failure"><p part="error" role="alert">${text}</p>${button}</section>`;
  }

  _reason() {
    const { status, problem } = this._error;
    const known = { 0: "offline", 401: "signedOut", 404: "notFound" }[status];
    const [wrong = problem?.detail] = Object.values(problem?.errors ?? {}).flat();
    return !known && status < 500 && wrong ? escape(wrong) : this._say(known ?? "failed");
  }

  _draw() {
    if (!this.isConnected) return;
    const wrong = this._wrong;
    let drawn;
    if (wrong) {
      const value = this._values[wrong];
      const text = typeof value === "object" ? JSON.stringify(value) : value;
      drawn = this._failure(this._say("invalid", { name: kebab(wrong), value: escape(text) }));
    } else if (!this._question() || this._answer) {
      try {
        drawn = this._content();
      } catch {
        drawn = this._failure(this._say("failed"), true);
      }
      if (this._error) drawn += this._failure(`${this._say("stale")} ${this._reason()}`, true);
    } else if (this._error) drawn = this._failure(this._reason(), true);
    else drawn = `<section part="card skeleton" aria-busy="true" aria-label="${this._say("loading")}"><i></i><i></i><i></i></section>`;
    if (drawn === this._drawn) return;
    this._drawn = drawn;
    const focused = this.shadowRoot.activeElement?.dataset.key;
    this.shadowRoot.innerHTML = drawn;
    for (const element of this.shadowRoot.querySelectorAll("[data-key]")) {
      const { key } = element.dataset;
      element.addEventListener("click", (event) => (key === "retry" ? refreshAll() : this._clicked(key, event)));
      if (key === focused) element.focus();
    }
    this._drew?.(this.shadowRoot);
  }
}

const icon = (path) => `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="${path}"/></svg>`;

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
    if (!this._usage) return this._failure(this._say("invalid", { name: "meter", value: escape(this._meter) }));
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
    const upgrade = url ? `<a href="${escape(url)}" ${label}</a>` : this._upgraders.size ? `<button ${label}</button>` : "";
    return this._card(
      this._label,
      (isNear ? icon("M8 2 14.5 13.5h-13zM8 6.5v3M8 11.4v.1") : "") + badge,
      `<p part="figure">${figure}</p>${isUnlimited ? "" : this._bar(used, limit, badge)}<p part="notes">${notes}</p>${isUnlimited ? "" : upgrade}`,
      `data-level="${level}"`,
    );
  }

  _bar(used, limit, badge) {
    const share = used < limit ? (used * 100) / limit : used ? 100 : 0;
    const mark = `${(limit * 100) / used}%`;
    const over = used > limit ? `<rect class="over" x="${mark}" width="100%" height="10"/><line x1="${mark}" x2="${mark}" y2="10"/>` : "";
    return `<div part="bar" role="img" aria-label="${badge}"><svg width="100%" height="10"><rect class="track" width="100%" height="10" rx="5"/><rect part="fill" width="${share}%" height="10" rx="5"/>${over}</svg></div>`;
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
      return `<li part="feature" ${value ? "" : 'class="excluded"'}>${icon(value ? "m3 8.6 3.3 3.3L13 4.8" : "M4 8h8")}${escape(labels[name] ?? name)} <span>${text}</span></li>`;
    });
    const list = rows.length ? `<ul>${rows.join("")}</ul>` : `<p part="notes">${this._say("noFeatures")}</p>`;
    return this._card(this._say("plan"), escape(this._answer?.plan ?? ""), list, 'data-level="plan"');
  }
}

// -- charts

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

// The last value is still running.
function trend(values) {
  const half = (values.length - 1) >> 1;
  const earlier = sum(values.slice(0, half));
  return earlier ? Math.trunc((sum(values.slice(-1 - half, -1)) * 100) / earlier - 100) : null;
}

function stepOf(highest) {
  for (let power = 1; ; power *= 10) for (const step of [1, 2, 5]) if (step * power * 4 >= highest) return step * power;
}

const isHistory = (data) =>
  (data.points ?? data).every?.(({ start, end, used }) => isCount(used) && Date.parse(start) < Date.parse(end));

export class UsageHistoryChart extends UsageElement {
  static properties = {
    ...UsageElement.properties,
    data: [JSON.parse, isHistory],
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
    // From the first month with usage, in buckets that are not too many.
    const months = await ask({ bucket: "month", last: 300 });
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
    const moment = timeZone ? new Date(start) : new Date(`${start.slice(0, 10)}T00:00Z`);
    const date = moment.toLocaleString(this._language, options);
    return days > 6 && days < 8 && !isShort ? this._say("week", { date }) : date;
  }

  _content() {
    const { chartType = "line", timeRangeControls, chartTypeControls } = this._values;
    this._marks = merged(this._points);
    const values = this._marks.map(({ used }) => used);
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
      `<p part="figure"><strong>${this._number(total)}</strong> ${this._say(`unit:${this._meter}`)}</p><div part="controls">${timeRangeControls ? choice("timeRange", Object.keys(DAYS), this._range) : ""}${chartTypeControls ? choice("chartType", CHART_TYPES, chartType) : ""}</div>${total ? this._plot(values, chartType, title) : `<p part="empty">${this._say("empty")}</p>`}`,
    );
  }

  _plot(values, type, title) {
    const count = values.length;
    const step = stepOf(Math.max(...values));
    const top = step * Math.ceil(Math.max(...values) / step);
    const width = 100 / count;
    const x = (index) => ((index + 0.5) * width).toFixed(2);
    const y = (value) => (200 - (value * 200) / top).toFixed(2);
    let grid = "", labels = "", dates = "";
    for (let value = 0; value <= top; value += step) {
      grid += `<line x2="100%" y1="${y(value)}" y2="${y(value)}"/>`;
      labels += `<text x="36" y="${y(value)}" dy="12">${this._number(value, { notation: top < 10000 ? "standard" : "compact" })}</text>`;
    }
    const apart = Math.ceil(count / 7);
    for (let index = count - 1; index >= 0; index -= apart)
      dates += `<text class="${((count - 1 - index) / apart) % 2 ? "minor" : ""}" x="${x(index)}%" y="220">${this._date(this._marks[index], true)}</text>`;
    const path = (shape, d) => `<path part="${shape}" d="${d}"/>`;
    const through = values.map((value, index) => `${x(index)} ${y(value)}`).join("L");
    const line = count > 1 ? `M${through}` : `M0 ${y(values[0])}H100`;
    const bar = (value, index) => (value ? `M${x(index - 0.35)} 200V${Math.min(y(value), 198.5)}H${x(index + 0.35)}V200` : "");
    const shapes =
      type === "bar"
        ? path("mark", values.map(bar).join(""))
        : (type === "area" ? path("area", `${line}V200H${count > 1 ? x(0) : 0}`) : "") + path("line", line);
    return `<div part="plot" dir="ltr"><svg class="values" width="44" height="232" aria-hidden="true">${labels}</svg><div class="drawing" data-key="plot" tabindex="0" role="slider" aria-label="${title}" aria-valuemax="${count}" aria-valuenow="${count}" aria-valuetext="${this._describe(count - 1)}"><svg width="100%" height="232" aria-hidden="true"><svg y="8" width="100%" height="200">${grid}<svg viewBox="0 0 100 200" preserveAspectRatio="none">${shapes}</svg>${dates}<rect class="here" width="${width}%" height="200"/></svg></svg><div part="tooltip" dir="auto" hidden></div></div></div>`;
  }

  _describe(index) {
    const { used, refused } = this._marks[index];
    const also = refused ? `, ${this._say("refused", { n: this._number(refused) })}` : "";
    return `${this._date(this._marks[index])}: ${this._number(used)}${also}`;
  }

  _drew(root) {
    const plot = root.querySelector(".drawing");
    if (!plot) return;
    const [tip, here] = [root.querySelector("[part=tooltip]"), root.querySelector(".here")];
    const count = this._marks.length;
    let active = -1;
    const show = (index) => {
      active = Math.min(index, count - 1);
      tip.hidden = active < 0;
      here.setAttribute("x", `${(active * 100) / count}%`);
      if (tip.hidden) return;
      tip.innerHTML = this._describe(active);
      plot.ariaValueNow = active + 1;
      plot.ariaValueText = tip.textContent;
      tip.style.left = `${((active + 0.5) * 100) / count}%`;
      tip.style.translate = `-${tip.style.left}`;
    };
    const on = (type, act) => plot.addEventListener(type, act);
    const point = ({ clientX }) => {
      const { left, width } = plot.getBoundingClientRect();
      show(Math.max(Math.trunc(((clientX - left) * count) / width), 0));
    };
    on("pointermove", point);
    on("pointerdown", point);
    on("pointerleave", ({ pointerType }) => pointerType === "touch" || show(-1));
    on("blur", () => show(-1));
    on("focus", () => plot.matches(":focus-visible") && show(count - 1));
    on("keydown", (event) => {
      const at = active < 0 ? count - 1 : active;
      const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: count }[event.key];
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

export class UsageDashboard extends UsageElement {
  static properties = { ...UsageElement.properties, layout: oneOf("stack", "grid"), meters: TEXT };

  _content() {
    const { layout = "stack", meters } = this._values;
    const names = meters?.match(/[^\s,]+/g) ?? Object.keys(this._answer.meters);
    const parts = 'exportparts="card,title,badge,figure,bar,fill,notes,status,upgrade,error,retry,skeleton,feature,controls,plot,line,area,mark,tooltip,empty"';
    const each = (tag, more = "") => names.map((name) => `<${tag} meter="${escape(name)}" ${more} ${parts}></${tag}>`).join("");
    return `<div part="dashboard" class="${layout}"><div>${each("api-usage-card")}<feature-access-card ${parts}></feature-access-card></div><div class="charts">${each("usage-history-chart", "time-range-controls chart-type-controls")}</div></div>`;
  }

  _draw() {
    super._draw();
    const { client, organization, refreshSeconds, strings } = this._values;
    for (const child of this.shadowRoot.querySelectorAll("[exportparts]"))
      Object.assign(child, { client, organization, refreshSeconds, strings, _upgraders: this._upgraders });
  }
}

// -- style

let styles;

function sheet(text) {
  const constructed = new CSSStyleSheet();
  constructed.replaceSync(text);
  return constructed;
}

const color = (name, light, dark) => `--_${name}:var(--usage-${name},light-dark(${light},${dark}));`;

const mixed = (name, part) => `--_${name}:var(--usage-${name},color-mix(in srgb,var(--_text) ${part}%,var(--_surface)));`;

const CSS_TEXT = `
:host{${color("surface", "#fff", "#171a21")}${color("text", "#141b2d", "#eef0f4")}${mixed("muted", 67)}${mixed("border", 12)}${mixed("track", 9)}${color("accent", "#3451d1", "#8fa6ff")}${color("warning", "#a34a00", "#f2b155")}${color("critical", "#bf2430", "#ff8a8a")}${color("included", "#17734a", "#5fcf9a")}--_radius:var(--usage-radius,14px);display:block;min-width:0;font-family:var(--usage-font,inherit)}
:host([hidden]){display:none}
[part~=card]{--_level:var(--_accent);box-sizing:border-box;height:100%;container-type:inline-size;padding:1.25rem 1.375rem;border:1px solid var(--_border);border-radius:var(--_radius);background:var(--_surface);color:var(--_text);font-size:.9375rem;line-height:1.5;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
[data-level=warning]{--_level:var(--_warning)}
[data-level=critical],[data-level=exceeded]{--_level:var(--_critical)}
[data-level=excluded]{--_level:var(--_muted)}
[data-level=plan]{--_level:var(--_text)}
h2,p,ul{margin:0;padding:0}
header{display:flex;flex-wrap:wrap;align-items:center;justify-content:space-between;gap:.25rem .75rem}
h2{color:var(--_muted);font-size:.875rem;font-weight:550}
[part=badge]{display:inline-flex;align-items:center;gap:.3rem;padding:.1rem .55rem;border-radius:99px;background:color-mix(in srgb,var(--_level) 11%,var(--_surface));color:var(--_level);font-size:.8125rem;font-weight:600}
.icon{flex:none;width:.875rem;fill:none;stroke:currentColor;stroke-width:1.7;stroke-linecap:round}
[part=figure]{margin-block:.625rem .875rem;color:var(--_muted)}
[part=figure] strong{margin-inline-end:.15rem;color:var(--_text);font-size:1.875rem;font-weight:650;line-height:1.1}
[part=bar]{margin-block-end:.875rem}
svg{display:block}
[part=bar] svg{border-radius:5px}
:dir(rtl)>[part=bar] svg{transform:scaleX(-1)}
.track{fill:var(--_track)}
[part=fill]{fill:var(--_level)}
.over{fill:var(--_surface);fill-opacity:.35}
[part=bar] line{stroke:var(--_surface);stroke-width:3}
[part=notes]{display:flex;flex-wrap:wrap;gap:.125rem .875rem;color:var(--_muted);font-size:.8125rem}
[part=notes] strong{color:var(--_level);font-weight:600}
button,a{display:inline-block;padding:.4rem .875rem;border:1px solid var(--_muted);border-radius:calc(var(--_radius)*.6);background:none;color:inherit;font:inherit;font-size:.875rem;font-weight:600;text-decoration:none}
[part=upgrade]{margin-block-start:.875rem;background:var(--_accent);color:var(--_surface)}
ul{margin-block-start:.75rem;list-style:none}
li{display:flex;align-items:center;gap:.6rem;padding-block:.4rem}
li+li{border-block-start:1px solid var(--_border)}
li .icon{color:var(--_included)}
li span{margin-inline-start:auto;color:var(--_muted)}
li.excluded,li.excluded *{color:var(--_muted)}
[part=controls],.segments{display:flex;flex-wrap:wrap;gap:0 .5rem}
.segments{gap:2px;margin-block-end:.75rem;padding:3px;border-radius:11px;background:var(--_track)}
.segments button{padding:.15rem .65rem;border:0;border-radius:8px;font-size:.8125rem}
.segments [aria-pressed=true]{background:var(--_surface)}
[part=plot]{display:flex}
[part=plot] svg{overflow:visible}
.drawing{position:relative;flex:1;min-width:0;touch-action:pan-y}
text{fill:var(--_muted);font-size:11px;text-anchor:middle}
.values text{text-anchor:end}
[part=plot] line{stroke:var(--_border)}
[part=mark],[part=area],.here{fill:var(--_accent)}
[part=area]{fill-opacity:.12}
[part=line]{fill:none;stroke:var(--_accent);stroke-width:2;vector-effect:non-scaling-stroke}
.here{fill-opacity:.12}
.drawing:has([hidden]) .here{display:none}
[part=tooltip]{position:absolute;top:-.75rem;box-sizing:border-box;width:max-content;max-width:100%;padding:.25rem .6rem;border-radius:8px;background:var(--_text);color:var(--_surface);font-size:.8125rem;pointer-events:none}
[part=empty]{padding:2.5rem 1rem;color:var(--_muted);text-align:center}
[part~=failure]{display:flex;flex-wrap:wrap;align-items:center;justify-content:space-between;gap:.75rem;height:auto;color:var(--_muted)}
*+[part~=failure]{margin-block-start:.5rem}
i{display:block;width:60%;height:1.25rem;margin-block-end:.9rem;border-radius:6px;background:var(--_track);animation:pulse 1.6s infinite}
@keyframes pulse{50%{opacity:.45}}
[part=dashboard],[part=dashboard] div{display:grid;gap:1rem}
.grid div{grid-template-columns:repeat(auto-fit,minmax(min(16rem,100%),1fr))}
.grid .charts{grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr))}
:focus-visible{outline:2px solid var(--_accent);outline-offset:2px}
@container (max-width:26rem){.minor{display:none}}
@media (prefers-reduced-motion){i{animation:none}}
`;

if (page) {
  addEventListener("online", refreshAll);
  page.adoptedStyleSheets.push(sheet(":root.dark{color-scheme:dark}"));
  for (const [tag, element] of Object.entries({
    "api-usage-card": ApiUsageCard,
    "feature-access-card": FeatureAccessCard,
    "usage-history-chart": UsageHistoryChart,
    "usage-dashboard": UsageDashboard,
  }))
    customElements.get(tag) ?? customElements.define(tag, element);
}
