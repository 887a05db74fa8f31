import { type ExportResult, ExportResultCode } from '@opentelemetry/core';
import type { ReadableSpan, SpanExporter, SpanProcessor } from '@opentelemetry/sdk-trace';
import type { Clock } from '../lib/clock.ts';

/** What became of spans: `dropped` never left, since the queue was full or the process ended; `failed` were not taken. */
export type SpanResult = 'exported' | 'failed' | 'dropped';

export interface SpanQueueOptions {
  /** Spans that wait at most; later ones are dropped. */
  readonly maxQueued: number;
  /** Spans sent at once. */
  readonly maxBatch: number;
  /** Milliseconds that a span waits for others to be sent with. */
  readonly delayMs: number;
  /** Milliseconds that a process that ends gives the rest. */
  readonly timeoutMs: number;
  readonly onResult: (result: SpanResult, spans: number) => void;
}

const SAMPLED = 1;

/**
 * Spans on their way to the exporter: one batch under way, a bounded number waiting, and no timer or promise that
 * anybody waits for. (The SDK's own processor says nothing of what it drops, and its timers keep a process alive.)
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

  /** Sends what waits for `patienceMs` at most; what is left is dropped. Never rejects. */
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

  /** A batch that was not taken is not sent again: the exporter has tried for as long as it may. */
  async #batches(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, this.#options.maxBatch);
      const { code } = await new Promise<ExportResult>((resolve) => this.#exporter.export(batch, resolve));
      this.#options.onResult(code === ExportResultCode.SUCCESS ? 'exported' : 'failed', batch.length);
    }
  }
}
