import { describe, expect, it } from '@jest/globals';
import { type ExportResult, ExportResultCode } from '@opentelemetry/core';
import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace';
import { SpanQueue, type SpanResult } from '../../src/telemetry/span-queue.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { until } from '../support/until.ts';

const TIMEOUT_MS = 2_000;
const DELAY_MS = 5_000;

/** An exporter whose results the test supplies. */
class HeldExporter implements SpanExporter {
  readonly batches: number[] = [];
  readonly #answers: ((result: ExportResult) => void)[] = [];

  export(spans: ReadableSpan[], done: (result: ExportResult) => void): void {
    this.batches.push(spans.length);
    this.#answers.push(done);
  }

  answer(code = ExportResultCode.SUCCESS): void {
    this.#answers.shift()?.({ code });
  }

  shutdown(): Promise<void> {
    return Promise.resolve();
  }
}

function queue({ maxQueued = 10, maxBatch = 4 } = {}) {
  const exporter = new HeldExporter();
  const clock = new ManualClock();
  const counts: Record<SpanResult, number> = { exported: 0, failed: 0, dropped: 0 };
  const onResult = (result: SpanResult, spans: number) => {
    counts[result] += spans;
  };
  const options = { maxQueued, maxBatch, delayMs: DELAY_MS, timeoutMs: TIMEOUT_MS, onResult };
  const waiting = new SpanQueue({ exporter, clock }, options);
  const end = (spans: number, traceFlags = 1) => {
    const span = { spanContext: () => ({ traceId: '1', spanId: '2', traceFlags }) } as ReadableSpan;
    for (let i = 0; i < spans; i++) waiting.onEnd(span);
  };
  return { waiting, exporter, clock, counts, end };
}

describe('spans on their way to the collector', () => {
  it('wait for others to go with, but no longer than the delay', async () => {
    const { exporter, clock, counts, end } = queue();
    end(2);
    clock.advance(DELAY_MS - 1);
    expect(exporter.batches).toEqual([]);
    clock.advance(1);
    expect(exporter.batches).toEqual([2]);
    exporter.answer();
    await until(() => counts.exported === 2);
  });

  it('go in batches, one at a time', async () => {
    const { exporter, counts, end } = queue();
    end(9);
    expect(exporter.batches).toEqual([4]);
    exporter.answer();
    await until(() => exporter.batches.length === 2);
    exporter.answer();
    await until(() => exporter.batches.length === 3);
    exporter.answer();
    await until(() => counts.exported === 9);
    expect(exporter.batches).toEqual([4, 4, 1]);
  });

  it('are dropped and counted when a collector that does not answer has filled the queue', () => {
    const { exporter, counts, end } = queue();
    end(100);
    expect(exporter.batches).toEqual([4]);
    expect(counts).toEqual({ exported: 0, failed: 0, dropped: 100 - 4 - 10 });
  });

  it('are counted when the collector does not take them, and not sent again', async () => {
    const { exporter, counts, end } = queue();
    end(4);
    exporter.answer(ExportResultCode.FAILED);
    await until(() => counts.failed === 4);
    expect(exporter.batches).toEqual([4]);
  });

  it('hold a process that ends no longer than its patience, and what is left is counted', async () => {
    const { waiting, clock, counts, end } = queue();
    end(6);
    let ended = false;
    const closed = waiting.shutdown().then(() => {
      ended = true;
    });
    clock.advance(TIMEOUT_MS - 1);
    await Promise.resolve();
    expect(ended).toBe(false);
    clock.advance(1);
    await closed;
    expect(counts.dropped).toBe(2);
    end(1);
    expect(counts.dropped).toBe(3);
  });

  it('are sent before a process ends, all of them, when the collector answers', async () => {
    const { waiting, exporter, counts, end } = queue();
    end(6);
    const closed = waiting.shutdown();
    exporter.answer();
    await until(() => exporter.batches.length === 2);
    exporter.answer();
    await closed;
    expect(counts).toEqual({ exported: 6, failed: 0, dropped: 0 });
  });

  it('are not exported when their trace is not sampled', () => {
    const { exporter, clock, end } = queue();
    end(9, 0);
    clock.advance(DELAY_MS);
    expect(exporter.batches).toEqual([]);
  });
});
