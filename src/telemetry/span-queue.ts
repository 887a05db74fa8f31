import { type ExportResult, ExportResultCode } from '@opentelemetry/core';
import type { ReadableSpan, SpanExporter, SpanProcessor } from '@opentelemetry/sdk-trace';
import type { Clock } from '../lib/clock.ts';

/** Fate of spans: `dropped` were never sent because the queue was full or the process ended; `failed` were rejected. */
export type SpanResult = 'exported' | 'failed' | 'dropped';

export interface SpanQueueOptions {
  /** Maximum number of queued spans; further ones are dropped. */
  readonly maxQueued: number;
  /** Maximum number of spans per batch. */
  readonly maxBatch: number;
  /** Milliseconds for which a span waits for others of its batch. */
  readonly delayMs: number;
  /** Timeout in milliseconds for the remaining spans at shutdown. */
  readonly timeoutMs: number;
  readonly onResult: (result: SpanResult, spans: number) => void;
}

const SAMPLED = 1;

/**
 * Queue of spans for the exporter: one batch in flight and a bounded number of spans waiting. No timer keeps the
 * process alive. The SDK's own processor does not report dropped spans, and its timers keep a process alive.
 */
export class SpanQueue implements SpanProcessor {
  readonly #exporter: SpanExporter;
  readonly #clock: Clock;
  readonly #options: SpanQueueOptions;
  #waiting: ReadableSpan[] = [];
  #sending: Promise<void> | undefined;
  #cancelTimer: (() => void) | undefined;
  #closed = false;

  constructor(deps: { readonly exporter: SpanExporter; readonly clock: Clock }, options: SpanQueueOptions) {
    this.#exporter = deps.exporter;
    this.#clock = deps.clock;
    this.#options = options;
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    if ((span.spanContext().traceFlags & SAMPLED) === 0) return;
    if (this.#closed || this.#waiting.length >= this.#options.maxQueued) return this.#options.onResult('dropped', 1);
    this.#waiting.push(span);
    if (this.#sending) return;
    if (this.#waiting.length >= this.#options.maxBatch) void this.#sendAll();
    else this.#cancelTimer ??= this.#clock.after(this.#options.delayMs, () => void this.#sendAll());
  }

  /** Never rejects. */
  forceFlush(): Promise<void> {
    return this.#sendAll();
  }

  /** Sends the queued spans for at most `timeoutMs` and drops the rest. Never rejects. */
  async shutdown(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    let cancel = () => {};
    const late = new Promise<void>((resolve) => {
      cancel = this.#clock.after(this.#options.timeoutMs, resolve);
    });
    await Promise.race([this.#sendAll(), late]);
    cancel();
    const remaining = this.#waiting.splice(0).length;
    if (remaining > 0) this.#options.onResult('dropped', remaining);
  }

  #sendAll(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#sending ??= this.#batches().finally(() => {
      this.#sending = undefined;
    });
    return this.#sending;
  }

  /** Sends batches until the queue is empty. A failed batch is not resent, because the exporter has already retried. */
  async #batches(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, this.#options.maxBatch);
      const { code } = await new Promise<ExportResult>((resolve) => this.#exporter.export(batch, resolve));
      this.#options.onResult(code === ExportResultCode.SUCCESS ? 'exported' : 'failed', batch.length);
    }
  }
}
