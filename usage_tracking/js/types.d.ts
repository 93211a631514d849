// What the client of static/usage_tracking/usage-tracking.js takes and returns, in the words of the OpenAPI schema.
import type { components } from "./openapi.js";

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
