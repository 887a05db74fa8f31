import { describe, expect, it } from '@jest/globals';
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from '@opentelemetry/sdk-trace';
import { isSampled, NO_TRACING, parseTraceParent, type SamplerName, type Tracing } from '../../src/lib/tracing.ts';
import { OtelTracing } from '../../src/telemetry/otel-tracing.ts';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';
const RECORDED = `00-${TRACE}-${SPAN}-01`;
const PASSED_BY = `00-${TRACE}-${SPAN}-00`;
const nothing = async () => undefined;

function traced(sampler: SamplerName = 'parentbased_always_on', ratio = 1) {
  const exporter = new InMemorySpanExporter();
  const nameError = (error: unknown) => ({ type: (error as Error).message, failure: true });
  const options = { resource: { 'service.name': 'test' }, sampler, ratio, nameError };
  const tracing = new OtelTracing({ processor: new SimpleSpanProcessor({ exporter }) }, options);
  return { tracing, spans: (): ReadableSpan[] => exporter.getFinishedSpans() };
}

describe('a received traceparent', () => {
  it.each([
    ['of version 00', RECORDED, RECORDED],
    ['of a later version, with more behind', `cc-${TRACE}-${SPAN}-01-what-comes`, RECORDED],
  ])('is taken %s', (_what, sent, taken) => {
    expect(parseTraceParent(sent)).toBe(taken);
  });

  it.each([
    ['of version 00 with more behind', `${RECORDED}-more`],
    ['of the version that is none', `ff-${TRACE}-${SPAN}-01`],
    ['without a trace', `00-${'0'.repeat(32)}-${SPAN}-01`],
    ['without a span', `00-${TRACE}-${'0'.repeat(16)}-01`],
    ['in capitals', RECORDED.toUpperCase()],
    ['too short', RECORDED.slice(0, -1)],
    ['endless', `cc-${TRACE}-${SPAN}-01-${'x'.repeat(10_000)}`],
    ['of two headers', [RECORDED, RECORDED]],
    ['empty', ''],
    ['missing', undefined],
  ])('is passed over %s', (_what, sent) => {
    expect(parseTraceParent(sent)).toBeUndefined();
  });
});

describe('traces', () => {
  it('hold the parts of what goes on, and of nothing that goes on beside it', async () => {
    const { tracing, spans } = traced();
    const request = (name: string) =>
      tracing.root(name, {}, async () => {
        await new Promise((resolve) => setImmediate(resolve));
        await tracing.span(`part of ${name}`, {}, nothing);
        return tracing.traceParent;
      });
    const [one, other] = await Promise.all([request('one'), request('other')]);
    expect(one).not.toBe(other);
    for (const name of ['one', 'other']) {
      const [part, whole] = [`part of ${name}`, name].map((wanted) => spans().find((span) => span.name === wanted));
      expect(part?.parentSpanContext?.spanId).toBe(whole?.spanContext().spanId);
    }
    expect(tracing.traceParent).toBeUndefined();
  });

  it('start anew with external input, whatever was in flight', async () => {
    const { tracing, spans } = traced();
    await tracing.root('first', {}, () => tracing.root('second', {}, nothing));
    expect(new Set(spans().map((span) => span.spanContext().traceId)).size).toBe(2);
  });

  it('have no part that belongs to no whole', async () => {
    const { tracing, spans } = traced();
    await tracing.span('alone', {}, nothing);
    expect(spans()).toEqual([]);
  });

  it('end with the last of what goes on behind a piece of work', async () => {
    const { tracing, spans } = traced();
    let release = () => {};
    const later = new Promise<void>((resolve) => {
      release = resolve;
    });
    await tracing.root('message', {}, async (span) => {
      span.until(later.then(() => tracing.failed(new Error('TOO_LATE'))));
    });
    expect(spans()).toEqual([]);
    release();
    await new Promise((resolve) => setImmediate(resolve));
    expect(spans()[0]).toMatchObject({ name: 'message', attributes: { 'error.type': 'TOO_LATE' } });
  });

  it('name what was thrown, throw it on, and keep nothing of its text', async () => {
    const { tracing, spans } = traced();
    const failing = tracing.root('fails', {}, () => Promise.reject(new Error('WRONG')));
    await expect(failing).rejects.toThrow('WRONG');
    expect(spans()[0]).toMatchObject({ attributes: { 'error.type': 'WRONG' }, status: { code: 2 }, events: [] });
  });

  it('continue a remote trace, and propagate it', async () => {
    const { tracing, spans } = traced();
    const handedOn = await tracing.root('remote', { parent: RECORDED }, async () => tracing.traceParent);
    const [span] = spans();
    expect(handedOn).toBe(`00-${TRACE}-${span?.spanContext().spanId}-01`);
    expect(span?.parentSpanContext).toMatchObject({ traceId: TRACE, spanId: SPAN, isRemote: true });
  });

  it('are in the log while they are recorded', async () => {
    const { tracing } = traced();
    const fields = await tracing.root('remote', { parent: RECORDED }, async () => tracing.logFields());
    expect(fields).toEqual({ trace_id: TRACE, span_id: expect.stringMatching(/^[0-9a-f]{16}$/) });
    expect(await tracing.root('remote', { parent: PASSED_BY }, async () => tracing.logFields())).toEqual({});
    expect(tracing.logFields()).toEqual({});
  });
});

describe('what is recorded', () => {
  /** A new trace, a sampled and an unsampled remote one, and a batch of those two. */
  async function all(tracing: Tracing): Promise<(boolean | undefined)[]> {
    const sampled = async () => tracing.traceParent && isSampled(tracing.traceParent);
    return [
      await tracing.root('new', {}, sampled),
      await tracing.root('recorded', { parent: RECORDED }, sampled),
      await tracing.root('passed by', { parent: PASSED_BY }, sampled),
      await tracing.root('batch', { kind: 'consumer', links: [PASSED_BY, RECORDED] }, sampled),
      await tracing.root('batch of others', { kind: 'consumer', links: [PASSED_BY] }, sampled),
    ] as (boolean | undefined)[];
  }

  it.each<[SamplerName, number, boolean[]]>([
    ['always_on', 1, [true, true, true, true, true]],
    ['always_off', 1, [false, false, false, false, false]],
    ['traceidratio', 1, [true, true, true, true, true]],
    ['traceidratio', 0, [false, false, false, false, false]],
    ['parentbased_always_on', 1, [true, true, false, true, true]],
    ['parentbased_always_off', 1, [false, true, false, true, false]],
    ['parentbased_traceidratio', 0, [false, true, false, true, false]],
  ])('by %s of %d', async (sampler, ratio, expected) => {
    const { tracing, spans } = traced(sampler, ratio);
    expect(await all(tracing)).toEqual(expected);
    expect(spans()).toHaveLength(expected.filter(Boolean).length);
  });

  it('is a whole trace or none of it: the parts of one that is passed by are, too', async () => {
    const { tracing, spans } = traced();
    const inside = await tracing.root('passed by', { parent: PASSED_BY }, () => {
      return tracing.span('part', {}, async () => tracing.traceParent);
    });
    expect(inside).toMatch(new RegExp(`^00-${TRACE}-[0-9a-f]{16}-00$`));
    expect(spans()).toEqual([]);
  });

  it('has no more than a bounded number of links, and texts of a bounded length', async () => {
    const { tracing, spans } = traced();
    const links = Array.from({ length: 1_000 }, () => RECORDED);
    await tracing.root('batch', { links, attributes: { long: 'x'.repeat(10_000) } }, nothing);
    const [span] = spans();
    expect(span?.links).toHaveLength(128);
    expect(String(span?.attributes.long)).toHaveLength(256);
  });
});

describe('without traces', () => {
  it('work is called as it is, and what it throws is thrown', async () => {
    expect(await NO_TRACING.root('a', {}, async (span) => [span.recording, NO_TRACING.traceParent])).toEqual([
      false,
      undefined,
    ]);
    await expect(NO_TRACING.span('b', {}, () => Promise.reject(new Error('thrown')))).rejects.toThrow('thrown');
  });
});
