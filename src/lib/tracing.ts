/** W3C Trace Context, `00-<trace id>-<span id>-<flags>`: where a piece of work stands, as other processes are told. */
export type TraceParent = string;

/** Never a token, a message's text, an argument or a user's name: a user is its hash, and names come from our own tables. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

export type SpanKind = 'internal' | 'server' | 'client' | 'producer' | 'consumer';

export interface SpanOptions {
  readonly kind?: SpanKind;
  readonly attributes?: Attributes;
}

export interface RootOptions extends SpanOptions {
  /** Where the trace comes from; without it, a new one begins. */
  readonly parent?: TraceParent | undefined;
  /** Other traces that this one follows from. */
  readonly links?: readonly (TraceParent | undefined)[];
}

/** A piece of work while it goes on. */
export interface Span {
  /** Whether anybody sees it: what costs something to find out is only found out for one that somebody does. */
  readonly recording: boolean;
  set(attributes: Attributes): void;
  /** Work of it that goes on behind its own: the span ends with the last of both. */
  until(work: Promise<unknown>): void;
}

/**
 * Traces of requests on their way through the processes. Off unless an exporter is configured; then every method calls
 * the work it is given and does nothing else.
 */
export interface Tracing {
  /** Where the work that is under way stands; undefined outside a trace. */
  readonly traceParent: TraceParent | undefined;
  /** Runs work that came from outside: whatever else was under way has nothing to do with it. Throws what it throws. */
  root<T>(name: string, options: RootOptions, work: (span: Span) => Promise<T>): Promise<T>;
  /** Runs a part of the work that is under way; one that belongs to no trace is no span. Throws what it throws. */
  span<T>(name: string, options: SpanOptions, work: (span: Span) => Promise<T>): Promise<T>;
  /** The work that is under way came to this end, although nothing is thrown. */
  failed(error: unknown): void;
  /** The ids of the work that is under way, for a line of the log: an object of the caller's own each time. */
  logFields(): { readonly trace_id?: string; readonly span_id?: string };
  /** Sends what is left, for a moment. */
  close(): Promise<void>;
}

const NO_SPAN: Span = { recording: false, set() {}, until() {} };

export const NO_TRACING: Tracing = {
  traceParent: undefined,
  root: (_name, _options, work) => work(NO_SPAN),
  span: (_name, _options, work) => work(NO_SPAN),
  failed() {},
  logFields: () => ({}),
  close: async () => {},
};

/** Version 00 has these four fields and nothing behind them; a later one may have more, which are passed over. */
const TRACE_PARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.{0,256})?$/;

/** What a caller sent as its `traceparent`, in the form of version 00; undefined for what is none. */
export function parseTraceParent(value: unknown): TraceParent | undefined {
  const fields = typeof value === 'string' ? TRACE_PARENT.exec(value) : null;
  if (!fields) return undefined;
  const [, version, traceId, spanId, flags, more] = fields;
  return version === '00' && more !== undefined ? undefined : `00-${traceId}-${spanId}-${flags}`;
}

const SAMPLED = 1;

/** Whether the trace is recorded; the sampling flag of W3C Trace Context. */
export function isSampled(traceParent: TraceParent): boolean {
  return (Number.parseInt(traceParent.slice(-2), 16) & SAMPLED) === SAMPLED;
}

/** `OTEL_TRACES_SAMPLER`, as the specification of the SDK's environment variables names them. */
export const SAMPLERS = [
  'always_on',
  'always_off',
  'traceidratio',
  'parentbased_always_on',
  'parentbased_always_off',
  'parentbased_traceidratio',
] as const;
export type SamplerName = (typeof SAMPLERS)[number];
