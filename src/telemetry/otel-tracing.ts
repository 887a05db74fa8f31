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

/** What an error is called in a span. */
export interface ErrorName {
  readonly type: string;
  /** Whether it is a failure of ours, and no refusal that the caller was meant to get. */
  readonly failure: boolean;
}

export interface OtelTracingOptions {
  /** `service.name` and what else says which process this is. */
  readonly resource: Attributes;
  readonly sampler: SamplerName;
  /** The share of new traces that is recorded, 0 to 1, for samplers by ratio. */
  readonly ratio: number;
  readonly nameError: (error: unknown) => ErrorName;
}

/** More than any span of ours has; a batch of the ledger has a link for each of its records, up to this many. */
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
 * Traces by the OpenTelemetry SDK, of which no global is used: two gateways in one process (as in tests) have a provider
 * each. What is under way is known by Node's own `AsyncLocalStorage`, so that no function has to hand a span on.
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
    // A part of what nobody records is nothing to record either; it goes on under the same trace.
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

  /** The processor sees to it that this ends in time. */
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

/** A span of the SDK, which ends by itself when its work has. */
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
    // The SDK passes over what is undefined.
    this.otel.setAttributes({ ...attributes });
  }

  until(work: Promise<unknown>): void {
    if (this.recording) this.#behind = Promise.allSettled([this.#behind, work]);
  }

  fail(error: unknown): void {
    const { type, failure } = this.#nameError(error);
    this.otel.setAttribute('error.type', type);
    // A refusal is an answer: on the side of the server it is no error (semantic conventions of HTTP spans).
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
 * What its parent is, a span is too; and what takes a batch of others' work is recorded when one of them is, or a sampler
 * by ratio would hardly ever show where a recorded request ended.
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
