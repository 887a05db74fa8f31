/** `traceparent` of W3C Trace Context, `00-<trace id>-<span id>-<flags>`; links spans across processes. */
export type TraceParent = string;

/**
 * Attributes of a span. They never contain tokens, message texts, arguments or user names; a user is represented by a
 * hash.
 */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

export type SpanKind = 'internal' | 'server' | 'client' | 'producer' | 'consumer';

export interface SpanOptions {
  readonly kind?: SpanKind;
  readonly attributes?: Attributes;
}

export interface RootOptions extends SpanOptions {
  /** Parent of the trace; without it, a new trace begins. */
  readonly parent?: TraceParent | undefined;
  /** Other traces to which this one is related. */
  readonly links?: readonly (TraceParent | undefined)[];
}

/** An active span. */
export interface Span {
  /** Whether the span is recorded. Expensive attributes are computed only for recorded spans. */
  readonly recording: boolean;
  set(attributes: Attributes): void;
  /** Extends the span until background work has ended too. */
  until(work: Promise<unknown>): void;
}

/**
 * Traces of requests across processes. Disabled unless an exporter is configured; a disabled implementation only
 * calls the given work.
 */
export interface Tracing {
  /** `traceparent` of the active span; undefined outside a trace. */
  readonly traceParent: TraceParent | undefined;
  /** Runs work from outside in a new span that is independent of the active one. Rethrows the errors of the work. */
  root<T>(name: string, options: RootOptions, work: (span: Span) => Promise<T>): Promise<T>;
  /** Runs work in a child of the active span, or without a span outside a trace. Rethrows the errors of the work. */
  span<T>(name: string, options: SpanOptions, work: (span: Span) => Promise<T>): Promise<T>;
  /** Records an error on the active span without throwing it. */
  failed(error: unknown): void;
  /** Ids of the active span for a log line. Returns a new object each time. */
  logFields(): { readonly trace_id?: string; readonly span_id?: string };
  /** Sends the remaining spans, for a bounded time. */
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

/** Version 00 has exactly these four fields. Later versions may have more, which are ignored. */
const TRACE_PARENT = /^(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.{0,256})?$/;

/** Normalises a received `traceparent` to version 00. Returns undefined if it is invalid. */
export function parseTraceParent(value: unknown): TraceParent | undefined {
  const fields = typeof value === 'string' ? TRACE_PARENT.exec(value) : null;
  if (!fields) return undefined;
  const [, version, traceId, spanId, flags, more] = fields;
  return version === '00' && more !== undefined ? undefined : `00-${traceId}-${spanId}-${flags}`;
}

const SAMPLED = 1;

/** Whether the sampled flag of W3C Trace Context is set. */
export function isSampled(traceParent: TraceParent): boolean {
  return (Number.parseInt(traceParent.slice(-2), 16) & SAMPLED) === SAMPLED;
}

/** Values of `OTEL_TRACES_SAMPLER` in the OpenTelemetry specification of environment variables. */
export const SAMPLERS = [
  'always_on',
  'always_off',
  'traceidratio',
  'parentbased_always_on',
  'parentbased_always_off',
  'parentbased_traceidratio',
] as const;
export type SamplerName = (typeof SAMPLERS)[number];
