// Generated from the OpenAPI schema and usage-tracking.js; see CONTRIBUTING.md. Do not edit.

/**
 * Its methods reject with a UsageError, or with the reason of an aborted `signal`.
 */
export function createUsageClient({ baseUrl, fetch, csrf }?: ClientOptions): {
    getUsage(options?: Options): Promise<Usage>;
    /** Oldest first. */
    getUsageHistory({ organization, signal, ...asked }?: HistoryOptions): Promise<History>;
    /** End the open period now. */
    resetUsage({ organization, signal, ...body }?: ResetOptions): Promise<Usage>;
    getLimits(options?: Options): Promise<Limits>;
    updateLimits({ organization, signal, ifMatch, ...body }: LimitsOptions): Promise<Limits>;
};
/**
 * `fetchUsage()` and `fetchUsageHistory()` never reject, see `$error`.
 */
export function createUsageStores(client?: UsageClient): {
    $usage: Store<Usage | null>;
    $history: Store<History | null>;
    $loading: Store<boolean>;
    $error: Store<UsageError | null>;
    fetchUsage: (options?: Options) => Promise<Usage | undefined>;
    fetchUsageHistory: (options?: HistoryOptions) => Promise<History | undefined>;
};
/** `status` is 0 when the API did not answer. */
export class UsageError extends Error {
    constructor(status: number, problem?: Problem, cause?: unknown);
    status: number;
    problem: Problem;
    /** What is wrong with which field. */
    errors: {
        [key: string]: string[];
    };
}
export class InvalidInputError extends UsageError {
}
export class NotSignedInError extends UsageError {
}
export class NotAllowedError extends UsageError {
}
/** There is none, or it is none of the user's. */
export class NotFoundError extends UsageError {
}
/** Somebody else was faster. */
export class ConflictError extends UsageError {
}
export class QuotaExceededError extends UsageError {
}
/** No answer, or none of the API's. */
export class ConnectionError extends UsageError {
}
export const $usage: Store<Usage | null>;
export const $history: Store<History | null>;
export const $loading: Store<boolean>;
export const $error: Store<UsageError | null>;
export const fetchUsage: (options?: Options) => Promise<Usage | undefined>;
export const fetchUsageHistory: (options?: HistoryOptions) => Promise<History | undefined>;
/** `meter:NAME` and `unit:NAME` name a meter. */
export const defaultStrings: Record<string, string>;
export type UsageClient = ReturnType<typeof createUsageClient>;


// -- elements --

export class ApiUsageCard extends HTMLElement {
    organization?: string | number;
    client?: Partial<Pick<UsageClient, "getUsage" | "getUsageHistory">>;
    refreshSeconds?: number;
    strings?: Record<string, string>;
    used?: number;
    limit?: number | null;
    meter?: string | number;
    warningThreshold?: number;
    upgradeUrl?: string | number;
}

export class FeatureAccessCard extends HTMLElement {
    organization?: string | number;
    client?: Partial<Pick<UsageClient, "getUsage" | "getUsageHistory">>;
    refreshSeconds?: number;
    strings?: Record<string, string>;
    features?: Usage["features"];
    featureLabels?: Record<string, string>;
}

export class UsageHistoryChart extends HTMLElement {
    organization?: string | number;
    client?: Partial<Pick<UsageClient, "getUsage" | "getUsageHistory">>;
    refreshSeconds?: number;
    strings?: Record<string, string>;
    data?: History["points"] | Pick<History, "points"> & Partial<History>;
    meter?: string | number;
    timeRange?: "7d" | "30d" | "90d" | "1y" | "all";
    chartType?: "line" | "bar" | "area";
    timeRangeControls?: boolean;
    chartTypeControls?: boolean;
}

export class UsageDashboard extends HTMLElement {
    organization?: string | number;
    client?: Partial<Pick<UsageClient, "getUsage" | "getUsageHistory">>;
    refreshSeconds?: number;
    strings?: Record<string, string>;
    layout?: "stack" | "grid";
    meters?: string | number;
}

/** The properties of each element, beside those of every element. */
export interface UsageElements {
    "api-usage-card": Omit<ApiUsageCard, keyof HTMLElement>;
    "feature-access-card": Omit<FeatureAccessCard, keyof HTMLElement>;
    "usage-history-chart": Omit<UsageHistoryChart, keyof HTMLElement>;
    "usage-dashboard": Omit<UsageDashboard, keyof HTMLElement>;
}

declare global {
    interface HTMLElementTagNameMap {
        "api-usage-card": ApiUsageCard;
        "feature-access-card": FeatureAccessCard;
        "usage-history-chart": UsageHistoryChart;
        "usage-dashboard": UsageDashboard;
    }
}


// -- what the client takes and returns --

type Schemas = components["schemas"];
type UsageOnTheWire = Schemas["Usage"];
type HistoryOnTheWire = Schemas["History"];

/** What an organization may use and has used. */
export interface Usage extends UsageOnTheWire {}
/** One meter over time, oldest first. */
export interface History extends HistoryOnTheWire {}
/** The limits of an organization, where they come from, and what to give `updateLimits` as `ifMatch`. */
export type Limits = Schemas["Limits"] & { etag: string };
/** RFC 9457 */
export type Problem = Partial<Schemas["InvalidProblem"]> & { [member: string]: unknown };

export interface Options {
  /** Its primary key; the active organization unless it is given. */
  organization?: Usage["organization"] | null;
  signal?: AbortSignal;
}
export interface HistoryOptions extends Options {
  meter?: string;
  since?: Date | string;
  until?: Date | string;
  bucket?: "hour" | "day" | "week" | "month";
  /** How many points, instead of `since`. */
  last?: number;
}
export interface ResetOptions extends Options, Partial<Schemas["Reset"]> {}
export interface LimitsOptions extends Options, Omit<Schemas["PatchedLimitsChange"], "organization"> {
  /** The `etag` of the limits that you have seen: a ConflictError if they are others by now. */
  ifMatch?: string;
}
export interface ClientOptions {
  /** Where `usage_tracking.api.urls` is included; else the page's `<meta name="usage-tracking-api">`, else `/usage/`. */
  baseUrl?: string;
  fetch?: typeof globalThis.fetch;
  /** A token, or what returns one; else from a form of the page, else from Django's cookie. */
  csrf?: string | (() => string);
}

/** The store contract of nanostores 1. */
export interface Store<T> {
  readonly init: T;
  readonly value: T;
  readonly lc: number;
  get(): T;
  set(value: T): void;
  listen(listener: (value: any, oldValue?: any) => void): () => void;
  subscribe(listener: (value: any, oldValue?: any) => void): () => void;
  notify(oldValue?: any): void;
  off(): void;
  eq(oldValue: any, newValue: any): boolean;
}


// -- what goes over the wire --

export interface components {
    schemas: {
        /** @enum {unknown} */
        BlankEnum: "";
        /**
         * @description * `hard` - hard
         *     * `soft` - soft
         *     * `shadow` - shadow
         * @enum {string}
         */
        EnforcementEnum: "hard" | "soft" | "shadow";
        /** @description One line of the audit trail. */
        Event: {
            id: number;
            kind: components["schemas"]["KindEnum"];
            meter: string;
            /** @description Percent of the limit that was reached. */
            threshold: number | null;
            limit: number | null;
            /** @description Empty when nobody did it. */
            actor: string;
            reason: string;
            /** @description The state after it; for limits_updated also “changes”, old and new. */
            data: {
                [key: string]: unknown;
            };
            /** Format: date-time */
            created_at: string;
        };
        /** @description The history of several meters over the same points. */
        Histories: {
            bucket: string;
            time_zone: string;
            meters: {
                [key: string]: components["schemas"]["HistoryPoint"][];
            };
        };
        /** @description The history of one meter, oldest first. */
        History: {
            meter: string;
            bucket: string;
            time_zone: string;
            points: components["schemas"]["HistoryPoint"][];
        };
        /** @description What was used and refused in [start, end). */
        HistoryPoint: {
            /** Format: date-time */
            start: string;
            /** Format: date-time */
            end: string;
            used: number;
            /** @description Refused calls; approximate. */
            refused: number;
        };
        /** @description What is wrong with the values of a request, by field. */
        InvalidProblem: {
            /** @description A URI that names the kind of problem; for programs. */
            type: string;
            /** @description For people, in their language. */
            title: string;
            status: number;
            /** @description For people, in their language. */
            detail: string;
            errors?: {
                [key: string]: string[];
            };
        };
        /**
         * @description * `warning` - warning
         *     * `exceeded` - exceeded
         *     * `reset` - reset
         *     * `limits_updated` - limits updated
         *     * `refunded` - refunded
         *     * `adjusted` - adjusted
         *     * `lease_lost` - lease lost
         * @enum {string}
         */
        KindEnum: "warning" | "exceeded" | "reset" | "limits_updated" | "refunded" | "adjusted" | "lease_lost";
        /** @description The organization's own overrides, blank where it has none, and what holds all in all. */
        Limits: {
            organization: number | string;
            plan: string;
            limits: {
                api?: number | null;
            };
            features: {
                [key: string]: boolean | string | number;
            };
            reset_mode: string;
            reset_period: string;
            anchor: string;
            time_zone: string;
            enforcement: string;
            explain: {
                plan: {
                    value: string;
                    /** @enum {string} */
                    source: "override" | "plan" | "default";
                };
                limits: {
                    [key: string]: {
                        value: number | null;
                        /** @enum {string} */
                        source: "override" | "plan" | "default";
                    };
                };
                features: {
                    [key: string]: {
                        value: boolean | string | number;
                        /** @enum {string} */
                        source: "override" | "plan" | "default";
                    };
                };
                reset_mode: {
                    /** @enum {string} */
                    value: "lazy" | "scheduled" | "manual";
                    /** @enum {string} */
                    source: "override" | "plan" | "default";
                };
                reset_period: {
                    /** @enum {string} */
                    value: "hourly" | "daily" | "weekly" | "monthly" | "quarterly" | "yearly";
                    /** @enum {string} */
                    source: "override" | "plan" | "default";
                };
                anchor: {
                    value: string;
                    /** @enum {string} */
                    source: "override" | "plan" | "default";
                };
                time_zone: {
                    value: string;
                    /** @enum {string} */
                    source: "override" | "plan" | "default";
                };
                enforcement: {
                    /** @enum {string} */
                    value: "hard" | "soft" | "shadow";
                    /** @enum {string} */
                    source: "override" | "plan" | "default";
                };
            };
        };
        /** @enum {string} */
        MeterEnum: "api";
        /** @description What was used of one meter in its open period. */
        MeterUsage: {
            used: number;
            /** @description null = unlimited. */
            limit: number | null;
            remaining: number | null;
            overage: number;
            /** @description Whole percent of the limit; goes on past 100; null when unlimited. */
            percentage: number | null;
            /** Format: date-time */
            period_start: string;
            /**
             * Format: date-time
             * @description null where only a person resets.
             */
            resets_at: string | null;
        };
        PaginatedEventList: {
            /** @example 123 */
            count: number;
            /**
             * Format: uri
             * @example http://api.example.org/accounts/?page=4
             */
            next?: string | null;
            /**
             * Format: uri
             * @example http://api.example.org/accounts/?page=2
             */
            previous?: string | null;
            results: components["schemas"]["Event"][];
        };
        PaginatedUsageList: {
            /** @example 123 */
            count: number;
            /**
             * Format: uri
             * @example http://api.example.org/accounts/?page=4
             */
            next?: string | null;
            /**
             * Format: uri
             * @example http://api.example.org/accounts/?page=2
             */
            previous?: string | null;
            results: components["schemas"]["Usage"][];
        };
        /** @description What to change. What is left out stays; "" says: as the plan, else the settings, say. */
        PatchedLimitsChange: {
            limits?: {
                api?: (number | null) | "inherit";
            };
            plan?: components["schemas"]["PlanEnum"] | components["schemas"]["BlankEnum"];
            features?: {
                [key: string]: boolean | string | number;
            };
            reset_mode?: components["schemas"]["ResetModeEnum"] | components["schemas"]["BlankEnum"];
            reset_period?: components["schemas"]["ResetPeriodEnum"] | components["schemas"]["BlankEnum"];
            anchor?: string | "";
            time_zone?: string;
            enforcement?: components["schemas"]["EnforcementEnum"] | components["schemas"]["BlankEnum"];
            reason?: string;
        };
        /** @enum {string} */
        PlanEnum: "free";
        /** @description A problem (RFC 9457). */
        Problem: {
            /** @description A URI that names the kind of problem; for programs. */
            type: string;
            /** @description For people, in their language. */
            title: string;
            status: number;
            /** @description For people, in their language. */
            detail: string;
        };
        /** @description Which meter to reset, and why. */
        Reset: {
            meter?: components["schemas"]["MeterEnum"];
            reason?: string;
        };
        /** @description What one run did. */
        ResetExpired: {
            /** @description Periods closed. */
            closed: number;
            /** @description Organizations they belonged to. */
            organizations: number;
            /** @description Whether expired periods are left: call again. */
            more: boolean;
        };
        /**
         * @description * `lazy` - lazy
         *     * `scheduled` - scheduled
         *     * `manual` - manual
         * @enum {string}
         */
        ResetModeEnum: "lazy" | "scheduled" | "manual";
        /**
         * @description * `hourly` - hourly
         *     * `daily` - daily
         *     * `weekly` - weekly
         *     * `monthly` - monthly
         *     * `quarterly` - quarterly
         *     * `yearly` - yearly
         * @enum {string}
         */
        ResetPeriodEnum: "hourly" | "daily" | "weekly" | "monthly" | "quarterly" | "yearly";
        /** @description What an organization may use and has used. */
        Usage: {
            organization: number | string;
            plan: string;
            features: {
                [key: string]: boolean | string | number;
            };
            reset_mode: components["schemas"]["ResetModeEnum"];
            reset_period: components["schemas"]["ResetPeriodEnum"];
            enforcement: components["schemas"]["EnforcementEnum"];
            /** @description The lowest percentage of the limit that is announced. */
            warning_threshold: number | null;
            /** @description By the name of the meter. */
            meters: {
                [key: string]: components["schemas"]["MeterUsage"];
            };
        };
        UsageHistory: components["schemas"]["History"] | components["schemas"]["Histories"];
        /** @description The quota is exceeded. */
        QuotaExceeded: {
            /** @constant */
            type: "https://iana.org/assignments/http-problem-types#quota-exceeded";
            title: string;
            /** @constant */
            status: 429;
            detail: string;
            "violated-policies": string[];
            meter: string;
            used: number;
            limit: number | null;
            remaining: number | null;
            /** Format: date-time */
            resets_at?: string | null;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: {
        /**
         * @description The quota: q = limit, w = length of the period in seconds.
         * @example "api";q=1000;w=2678400
         */
        RateLimitPolicy: string;
        /**
         * @description What is left of it: r = remaining, t = seconds until the reset.
         * @example "api";r=42;t=86400
         */
        RateLimit: string;
        /** @description Seconds until the quota resets. */
        RetryAfter: number;
    };
    pathItems: never;
}
