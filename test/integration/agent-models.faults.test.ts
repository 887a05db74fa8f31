import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { type LoggedEvent, ModelRuns, textBySteps } from '../support/model-runs.ts';
import { ModelServer, type ScriptedReply } from '../support/model-server.ts';
import { closeAfter } from '../support/open-resources.ts';

let model: ModelServer;
let runs: ModelRuns;

beforeAll(async () => {
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
  runs = await ModelRuns.start(model);
});

beforeEach(() => {
  model.requests.length = 0;
});

/** Long enough for a busy machine to answer; the tests of silence wait this long. */
const settings = { first_chunk_seconds: 1.5, silence_seconds: 1.5, loading_seconds: 0 };
const ANSWER: ScriptedReply = { text: ['All ', 'is ', 'well.'] };

/** The first request meets the fault, later ones are answered. */
function once(fault: ScriptedReply): void {
  model.script = (_request, at) => (at === 0 ? fault : ANSWER);
}

const end = (events: readonly LoggedEvent[]) => events.at(-1);

describe('a reply that is whole', () => {
  it.each(['hang', 'reset'] as const)('counts, whatever the connection does after it: %s', async (after) => {
    model.script = () => ({ ...ANSWER, after });
    const { end: how, events, userId } = await runs.run({ settings: { ...settings, end_seconds: 0.1 } });
    expect([how, model.requests.length]).toEqual(['completed', 1]);
    expect(end(events)).toMatchObject({ type: 'agent_completed', final_response: 'All is well.' });
    expect(await runs.records({ userId })).toMatchObject([{ status: 'success', estimated: true }]);
  });
});

describe('a request to the model that fails before it said anything', () => {
  it.each<[string, ScriptedReply]>([
    ['HTTP 429', { status: 429 }],
    ['HTTP 429 with Retry-After', { status: 429, headers: { 'retry-after': '1' } }],
    ['HTTP 500', { status: 500 }],
    ['HTTP 503', { status: 503 }],
    ['silence before the first byte', { fault: 'hang' }],
    ['silence after the headers', { text: [], fault: 'hang' }],
    ['a connection that is reset', { text: [], fault: 'reset' }],
    ['an empty answer', { text: [] }],
    ['an answer of blanks', { text: [' ', '\n'] }],
    ['an answer that ends before its end', { text: [], fault: 'end' }],
    ['an answer that is no event stream', { raw: '<html>hello</html>' }],
    ['an event that is no JSON', { raw: 'data: {"choices": [\n\n' }],
    ['an event of another form', { raw: 'data: {"choices": "none"}\n\ndata: [DONE]\n\n' }],
    ['an error in the stream', { raw: 'data: {"error": {"message": "sk-secret"}}\n\n' }],
  ])('is made again: %s', async (_label, fault) => {
    once(fault);
    const { end: how, events, userId } = await runs.run({ settings });
    expect(how).toBe('completed');
    expect(model.requests).toHaveLength(2);
    expect(end(events)).toMatchObject({ type: 'agent_completed', final_response: 'All is well.' });
    expect(textBySteps(events).join('').trim()).toBe('All is well.');
    expect((await runs.records({ userId })).map(({ status }) => status).filter((s) => s === 'success')).toHaveLength(1);
  });

  it('waits as long as Retry-After says', async () => {
    once({ status: 429, headers: { 'retry-after': '1' } });
    const before = performance.now();
    await runs.run({ settings });
    expect(performance.now() - before).toBeGreaterThan(1_000);
  });

  it('is made four times at most', async () => {
    model.script = () => ({ status: 500 });
    const { end: how, events } = await runs.run({ settings });
    expect(how).toBe('failed');
    expect(model.requests).toHaveLength(4);
    expect(events.map(({ type }) => type)).toEqual(['agent_started', 'agent_failed']);
    expect(end(events)?.error).toMatchObject({ code: 'INTERNAL_ERROR', retryable: true });
  });

  it.each([400, 401, 403, 404, 413, 422])('is not made again: HTTP %i', async (status) => {
    once({ status });
    const { end: how, events } = await runs.run({ settings });
    expect([how, model.requests.length]).toEqual(['failed', 1]);
    expect(JSON.stringify(events)).not.toContain('sk-');
  });

  it('is not repeated if the model requires more time than a run has, and the client gets the reason', async () => {
    once({ status: 503, headers: { 'retry-after': '60' } });
    const { events } = await runs.run({ settings });
    expect(model.requests).toHaveLength(1);
    expect(end(events)).toMatchObject({ type: 'agent_failed', error: { retryable: true, retry_after_ms: 60_000 } });
  });
});

describe('an answer that breaks off', () => {
  it.each<[string, ScriptedReply]>([
    ['by silence', { text: ['All ', 'is ', 'lost'], fault: 'hang' }],
    ['by a reset', { text: ['All ', 'is ', 'lost'], fault: 'reset' }],
  ])('%s begins again as a step that replaces it, and is recorded at no price', async (_label, fault) => {
    once(fault);
    const { events, userId } = await runs.run({ settings });
    expect(textBySteps(events)).toEqual(['All is well.']);
    const thoughts = events.filter(({ type }) => type === 'agent_thinking');
    expect(new Set(thoughts.map(({ step }) => step))).toEqual(new Set([1, 2]));
    expect(thoughts.filter(({ replaces_step }) => replaces_step === 1)).toHaveLength(1);
    expect(thoughts.find(({ step }) => step === 2)).toMatchObject({ replaces_step: 1 });
    expect(await runs.records({ userId })).toMatchObject([
      { status: 'error', units: 0, estimated: true },
      { status: 'success', units: 1 },
    ]);
    expect(end(events)).toMatchObject({ type: 'agent_completed', final_response: 'All is well.' });
  });
});

describe('a model without measure', () => {
  it('is cut off when its text is as long as an answer may be', async () => {
    model.script = () => ({ text: ['Endless. '], fault: 'endless' });
    const { end: how, events, userId } = await runs.run({ settings });
    expect(how).toBe('completed');
    const answer = String(end(events)?.final_response);
    expect(answer.length).toBeGreaterThan(32_000);
    expect(answer.length).toBeLessThanOrEqual(32_768);
    await model.requests[0]?.closed;
    expect(model.requests[0]?.aborted).toBe(true);
    expect(await runs.records({ userId })).toMatchObject([{ estimated: true }]);
    expect(Math.max(...events.map((event) => JSON.stringify(event).length))).toBeLessThan(40_000);
  });

  it('is left when its response has more bytes than a response may have', async () => {
    model.script = () => ({ text: [], raw: `: ${'x'.repeat(200_000)}\n\n` });
    const { end: how } = await runs.run({ settings: { ...settings, response_bytes: 100_000 } });
    expect([how, model.requests.length]).toEqual(['failed', 1]);
  });

  it('has eight steps: in the last one it gets no tools, and answers or fails', async () => {
    model.script = ({ body }) => (body.tool_choice === 'none' ? ANSWER : { calls: [{ name: 'count' }] });
    const { events } = await runs.run({ settings });
    expect(model.requests).toHaveLength(8);
    expect(end(events)).toMatchObject({ final_response: 'All is well.', tools_used: ['count'] });
    expect(events.filter(({ type }) => type === 'tool_completed')).toHaveLength(7);

    model.requests.length = 0;
    model.script = () => ({ calls: [{ name: 'count' }] });
    const looped = await runs.run({ settings });
    expect(model.requests).toHaveLength(8);
    expect(end(looped.events)).toMatchObject({ type: 'agent_failed', error: { code: 'INTERNAL_ERROR' } });
  });

  it('has eight calls a step; each further one is refused to it', async () => {
    const calls = Array.from({ length: 20 }, () => ({ name: 'count' }));
    model.script = (_request, at) => (at === 0 ? { calls } : ANSWER);
    const { events } = await runs.run({ settings });
    expect(events.filter(({ type }) => type === 'tool_completed')).toHaveLength(8);
    const results = model.requests[1]?.body.messages.filter(({ role }) => role === 'tool') ?? [];
    expect(results.filter(({ content }) => content?.includes('FORMAT_ERROR'))).toHaveLength(12);
  });
});

describe('calls of one step', () => {
  it('run concurrently, each reported as executing before it is reported as completed', async () => {
    model.script = (_request, at) => (at === 0 ? { calls: [{ name: 'count' }, { name: 'other' }] } : ANSWER);
    let waiting = 0;
    let together = () => {};
    const both = new Promise<void>((resolve) => {
      together = resolve;
    });
    // The calls wait for each other: sequential execution would never end.
    const count = async () => {
      waiting += 1;
      if (waiting === 2) together();
      await both;
      return { counted: 1 };
    };
    const { end: how, events } = await runs.run({ settings, count, timeoutMs: 5_000 });
    expect(how).toBe('completed');
    const seen = events.filter(({ type }) => type.startsWith('tool_'));
    expect(seen.map(({ type }) => type)).toEqual([
      'tool_executing',
      'tool_executing',
      'tool_completed',
      'tool_completed',
    ]);
  });

  it('with the same id get results of their own', async () => {
    const calls = [
      { id: 'x', name: 'count' },
      { id: 'x', name: 'count' },
    ];
    model.script = (_request, at) => (at === 0 ? { calls } : ANSWER);
    await runs.run({ settings });
    const ids = model.requests[1]?.body.messages.flatMap((m) => (m.role === 'tool' ? [m.tool_call_id] : [])) ?? [];
    expect(new Set(ids).size).toBe(2);
  });
});

describe('what a thousand tokens cost', () => {
  it('is at most five appends a second, however fast the model is', async () => {
    const pieces = Array.from({ length: 1_000 }, (_, i) => `tok${i} `);
    model.script = () => ({ text: pieces });
    const fast = await runs.run({ settings });
    const appends = fast.events.filter(({ type }) => type === 'agent_thinking').length;
    expect(appends).toBeLessThanOrEqual(20);
    expect(textBySteps(fast.events)).toEqual([pieces.join('')]);

    model.script = () => ({ text: pieces.slice(0, 200), pieceMs: 10 });
    const before = performance.now();
    const slow = await runs.run({ settings });
    const seconds = (performance.now() - before) / 1_000;
    expect(slow.events.filter(({ type }) => type === 'agent_thinking').length).toBeLessThanOrEqual(seconds * 4 + 3);
  });
});
