import { AsyncLocalStorage } from 'node:async_hooks';
import {
  type Context,
  type Link,
  type Attributes as OtelAttributes,
  SpanKind as OtelKind,
  type Span as OtelSpan,
  ROOT_CONTEXT,
  type SpanContext,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  SamplingDecision,
  type SamplingResult,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import {
  type Attributes,
  NO_TRACING,
  parseTraceParent,
  type RootOptions,
  type SamplerName,
  type Span,
  type SpanKind,
  type SpanOptions,
  type TraceParent,
  type Tracing,
} from '../lib/tracing.ts';

/** Representation of an error in a span. */
export interface ErrorName {
  readonly type: string;
  /** Whether it is a failure of Tollgate, in contrast to an intended refusal. */
  readonly failure: boolean;
}

export interface OtelTracingOptions {
  /** `service.name` and other attributes that identify the process. */
  readonly resource: Attributes;
  readonly sampler: SamplerName;
  /** The share of new traces that is recorded, 0 to 1, for samplers by ratio. */
  readonly ratio: number;
  readonly nameError: (error: unknown) => ErrorName;
}

/** Maximum number of links per span. An ingestion batch has one link per record, up to this number. */
const MAX_LINKS = 128;
const MAX_ATTRIBUTE_LENGTH = 256;
const KINDS: Readonly<Record<SpanKind, OtelKind>> = {
  internal: OtelKind.INTERNAL,
  server: OtelKind.SERVER,
  client: OtelKind.CLIENT,
  producer: OtelKind.PRODUCER,
  consumer: OtelKind.CONSUMER,
};

/**
 * Traces with the OpenTelemetry SDK. No global of the SDK is used, so that several gateways in one process (as in
 * tests) have separate providers. `AsyncLocalStorage` holds the active span, so that functions need not pass it on.
 */
export class OtelTracing implements Tracing {
  readonly #provider: TracerProvider;
  readonly #tracer: Tracer;
  readonly #nameError: OtelTracingOptions['nameError'];
  readonly #pendingExports = new AsyncLocalStorage<LiveSpan>();

  constructor(deps: { readonly processor: SpanProcessor }, options: OtelTracingOptions) {
    this.#provider = new TracerProvider({
      resource: resourceFromAttributes({ ...options.resource }),
      sampler: samplerOf(options.sampler, options.ratio),
      spanLimits: { linkCountLimit: MAX_LINKS, attributeValueLengthLimit: MAX_ATTRIBUTE_LENGTH },
      spanProcessors: [deps.processor],
    });
    this.#tracer = this.#provider.getTracer('tollgate');
    this.#nameError = options.nameError;
  }

  get traceParent(): TraceParent | undefined {
    const context = this.#pendingExports.getStore()?.otel.spanContext();
    return context && `00-${context.traceId}-${context.spanId}-0${context.traceFlags & TraceFlags.SAMPLED}`;
  }

  root<T>(name: string, options: RootOptions, work: (span: Span) => Promise<T>): Promise<T> {
    const remote = remoteContext(options.parent);
    return this.#run(name, options, work, remote ? trace.setSpanContext(ROOT_CONTEXT, remote) : ROOT_CONTEXT);
  }

  span<T>(name: string, options: SpanOptions, work: (span: Span) => Promise<T>): Promise<T> {
    const current = this.#pendingExports.getStore();
    if (!current) return NO_TRACING.span(name, options, work);
    // A child of an unrecorded span is not recorded either; the work keeps its trace.
    if (!current.recording) return work(current);
    return this.#run(name, options, work, trace.setSpan(ROOT_CONTEXT, current.otel));
  }

  failed(error: unknown): void {
    this.#pendingExports.getStore()?.fail(error);
  }

  logFields(): { trace_id?: string; span_id?: string } {
    const span = this.#pendingExports.getStore();
    if (!span?.recording) return {};
    const { traceId, spanId } = span.otel.spanContext();
    return { trace_id: traceId, span_id: spanId };
  }

  /** The span processor bounds the duration. */
  close(): Promise<void> {
    return this.#provider.shutdown();
  }

  #run<T>(
    name: string,
    { kind = 'internal', attributes = {}, links = [] }: RootOptions,
    work: (span: Span) => Promise<T>,
    context: Context,
  ): Promise<T> {
    const linked = links.flatMap((link) => {
      const other = remoteContext(link);
      return other ? [{ context: other }] : [];
    });
    const options = { kind: KINDS[kind], attributes, links: linked };
    const span = new LiveSpan(this.#tracer.startSpan(name, options, context), this.#nameError);
    return this.#pendingExports.run(span, () => span.during(work));
  }
}

/** A span of the SDK that ends together with its work. */
class LiveSpan implements Span {
  readonly otel: OtelSpan;
  readonly #nameError: OtelTracingOptions['nameError'];
  #behind: Promise<unknown> | undefined;

  constructor(otel: OtelSpan, nameError: OtelTracingOptions['nameError']) {
    this.otel = otel;
    this.#nameError = nameError;
  }

  get recording(): boolean {
    return this.otel.isRecording();
  }

  set(attributes: Attributes): void {
    // The SDK ignores undefined values.
    this.otel.setAttributes({ ...attributes });
  }

  until(work: Promise<unknown>): void {
    if (this.recording) this.#behind = Promise.allSettled([this.#behind, work]);
  }

  fail(error: unknown): void {
    const { type, failure } = this.#nameError(error);
    this.otel.setAttribute('error.type', type);
    // A refusal is a regular response and not an error of the server (semantic conventions of HTTP spans).
    if (failure) this.otel.setStatus({ code: SpanStatusCode.ERROR });
  }

  async during<T>(work: (span: Span) => Promise<T>): Promise<T> {
    try {
      return await work(this);
    } catch (error) {
      this.fail(error);
      throw error;
    } finally {
      if (this.#behind) this.#behind.then(() => this.otel.end());
      else this.otel.end();
    }
  }
}

function remoteContext(traceParent: TraceParent | undefined): SpanContext | undefined {
  const [, traceId = '', spanId = '', flags = ''] = parseTraceParent(traceParent)?.split('-') ?? [];
  return traceId === '' ? undefined : { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
}

function samplerOf(name: SamplerName, ratio: number): Sampler {
  const base = name.replace('parentbased_', '');
  const root =
    base === 'always_off'
      ? new AlwaysOffSampler()
      : base === 'traceidratio'
        ? new TraceIdRatioBasedSampler(ratio)
        : new AlwaysOnSampler();
  return base === name ? root : new FollowingSampler(root);
}

/**
 * Samples a span like its parent. A consumer span is recorded if one of its links is: with a sampler by ratio, the
 * batch that completes a recorded request would otherwise rarely be recorded.
 */
class FollowingSampler implements Sampler {
  readonly #base: Sampler;

  constructor(root: Sampler) {
    this.#base = new ParentBasedSampler({ root });
  }

  shouldSample(
    context: Context,
    traceId: string,
    name: string,
    kind: OtelKind,
    attributes: OtelAttributes,
    links: Link[],
  ): SamplingResult {
    if (kind === OtelKind.CONSUMER && links.some((link) => (link.context.traceFlags & TraceFlags.SAMPLED) !== 0)) {
      return { decision: SamplingDecision.RECORD_AND_SAMPLED };
    }
    return this.#base.shouldSample(context, traceId, name, kind, attributes, links);
  }

  toString(): string {
    return `Following{${this.#base.toString()}}`;
  }
}
