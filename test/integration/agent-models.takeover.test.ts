import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { builtInAgent } from '../../src/agents/built-in/built-in-agent.ts';
import { type LoggedEvent, ModelRuns, textBySteps } from '../support/model-runs.ts';
import { ModelServer } from '../support/model-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

let model: ModelServer;
let runs: ModelRuns;

beforeAll(async () => {
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
  runs = await ModelRuns.start(model);
});

/** A model whose answers never repeat. It chooses the next one by the conversation that it receives. */
beforeEach(() => {
  runs.letTimeRun();
  model.requests.length = 0;
  model.script = ({ body }, at) =>
    body.messages.some(({ role }) => role === 'tool')
      ? { text: [`Version ${at} `, 'of the ', 'answer.'] }
      : { text: [`Version ${at} `, 'of the ', 'plan.'], calls: [{ name: 'count' }, { name: 'other' }] };
});

const FULL_RUN = [
  'agent_started',
  'agent_thinking',
  'agent_thinking',
  'tool_executing',
  'tool_executing',
  'tool_completed',
  'tool_completed',
  'agent_thinking',
  'agent_thinking',
  'agent_completed',
];
const REASONED_RUN = [
  'agent_started',
  'agent_reasoning',
  'agent_reasoning',
  'agent_thinking',
  'tool_executing',
  'tool_completed',
  'agent_thinking',
  'agent_thinking',
  'agent_completed',
];
const thoughts = (events: readonly LoggedEvent[]) => events.filter(({ type }) => type === 'agent_thinking');

describe('a run on a model whose worker died', () => {
  it.each(FULL_RUN.map((_, died) => died))(
    'continues where it was when its worker died after event %i',
    async (died) => {
      runs.stopTime();
      const accepted = await runs.accept();
      let executions = 0;
      const count = async () => ({ execution: ++executions });
      const dying = runs.dyingLog(died);
      void runs.executor({ log: dying.log, count }).execute(await runs.claim(accepted));
      await until(dying.dead);

      expect(await runs.executor({ count }).execute(await runs.claim(accepted))).toBe('completed');
      const events = await runs.events(accepted);
      // A step whose text was cut off is requested again; a completed one never is.
      // The first request is sent while agent_started is appended.
      const cutOff = died === 0 || died === 1 || died === 2 || died === 7 || died === 8;
      const begun = died === 2 || died === 8;
      expect(model.requests).toHaveLength(cutOff ? 3 : 2);
      expect(events).toHaveLength(FULL_RUN.length + (begun ? 1 : 0));
      expect(thoughts(events).filter((event) => 'replaces_step' in event)).toHaveLength(begun ? 1 : 0);
      const [plan, answer] = textBySteps(events);
      expect(textBySteps(events)).toHaveLength(2);
      expect(plan).toMatch(/^Version \d of the plan\.$/);
      expect(events.at(-1)).toMatchObject({ type: 'agent_completed', final_response: answer });

      const calls = events.filter(({ type }) => type.startsWith('tool_')).map((e) => [e.type, e.tool_call_id]);
      expect(new Set(calls.map(String)).size).toBe(4);
      expect(calls.slice(0, 2).map(([type]) => type)).toEqual(['tool_executing', 'tool_executing']);
      const records = await runs.records(accepted);
      const named = events.flatMap(({ usage_record_id: id }) => (id ? [id] : []));
      expect(records.map(({ id }) => id)).toEqual(named);
      expect(records.map(({ status }) => status)).toEqual(['success', 'success', 'success', 'success']);
      expect(executions).toBeLessThanOrEqual(4);
      const units = records.reduce((all, record) => all + record.units, 0);
      const kinds = records.flatMap(({ units_by_kind: of }) => (of ? [of] : []));
      const total = (kind: string) => kinds.reduce((all, of) => all + (of[kind] ?? 0), 0);
      const usage = { input_tokens: total('input_tokens'), output_tokens: total('output_tokens') };
      expect(events.at(-1)).toMatchObject({ usage: [{ model: 'm', ...usage }] });
      const { under_way, today } = await runs.summary(accepted);
      expect([under_way.calls, today]).toEqual([0, expect.objectContaining({ calls: records.length, units })]);
    },
  );

  it.each(REASONED_RUN.map((_, died) => died))(
    'has its reasoning once per attempt when its worker died after event %i',
    async (died) => {
      runs.stopTime();
      const call = { index: 0, id: 'c', function: { name: 'count', arguments: '{}' }, extra_content: { s: 1 } };
      const deltas = [{ reasoning_content: 'I ' }, { reasoning_content: 'count.' }, { tool_calls: [call] }];
      const calling = { stream: [...deltas.map((delta) => ({ choices: [{ delta }] })), 'data: [DONE]\n\n'] };
      model.script = ({ body }) =>
        body.messages.some(({ role }) => role === 'tool') ? { text: ['Done ', 'it.'] } : calling;
      const accepted = await runs.accept();
      const dying = runs.dyingLog(died);
      void runs.executor({ log: dying.log }).execute(await runs.claim(accepted));
      await until(dying.dead);

      expect(await runs.executor().execute(await runs.claim(accepted))).toBe('completed');
      const events = await runs.events(accepted);
      const replaced = new Set(events.flatMap(({ replaces_step: step }) => (step ? [step] : [])));
      const valid = events.filter(({ step }) => !replaced.has(step ?? 0));
      expect(valid.map(({ type }) => type)).toEqual(REASONED_RUN);
      const reasoning = valid.flatMap((event) => (event.type === 'agent_reasoning' ? [event.reasoning] : []));
      expect(reasoning.join('')).toBe('I count.');
      // The worker that took over sends back what the first one received.
      expect(model.requests.at(-1)?.body.messages.at(-2)).toMatchObject({
        reasoning_content: 'I count.',
        tool_calls: [{ id: 'c', extra_content: { s: 1 } }],
      });
      expect(await runs.records(accepted)).toMatchObject([{ tool: 'model:m' }, { tool: 'count' }, { tool: 'model:m' }]);
    },
  );

  it('continues after one of two calls had ended, and runs only the other again', async () => {
    const accepted = await runs.accept();
    const executed: string[] = [];
    // The first call hangs under the first worker; the second one completes.
    let stuck = true;
    const count = async (_args: unknown, { callId }: { readonly callId: string }) => {
      executed.push(callId);
      if (stuck && callId.endsWith('_1')) await new Promise(() => undefined);
      return { callId };
    };
    const dying = runs.dyingLog(6);
    void runs.executor({ log: dying.log, count }).execute(await runs.claim(accepted));
    await until(async () => (await runs.events(accepted)).length === 6);
    stuck = false;
    expect(await runs.executor({ count }).execute(await runs.claim(accepted))).toBe('completed');
    const events = await runs.events(accepted);
    expect(events.map(({ type }) => type)).toEqual(FULL_RUN);
    expect(executed.map((id) => id.at(-1))).toEqual(['1', '2', '1']);
    // The model receives each result as that of its call.
    const results = model.requests.at(-1)?.body.messages.filter(({ role }) => role === 'tool') ?? [];
    expect(results.map(({ content }) => /_(\d)"/.exec(content ?? '')?.[1])).toEqual(['1', '2']);
  });

  it('may die again and again: each attempt replaces the one before', async () => {
    const accepted = await runs.accept();
    for (let worker = 0; worker < 3; worker++) {
      // Each worker gets one event further, into the text of the first step.
      const dying = runs.dyingLog(worker === 0 ? 2 : 1);
      void runs.executor({ log: dying.log }).execute(await runs.claim(accepted));
      await until(dying.dead);
    }
    expect(await runs.executor().execute(await runs.claim(accepted))).toBe('completed');
    const events = await runs.events(accepted);
    expect(thoughts(events).flatMap(({ replaces_step }) => (replaces_step ? [replaces_step] : []))).toEqual([1, 2, 3]);
    expect(textBySteps(events)).toHaveLength(2);
    expect(textBySteps(events)[0]).toMatch(/^Version 3 of the plan\.$/);
  });

  it('ends with agent_failed when another kind of agent had begun it, instead of mixing the two', async () => {
    const accepted = await runs.accept();
    const dying = runs.dyingLog(2);
    const callsOne = async (_task: unknown, context: Parameters<typeof builtInAgent>[1]) => {
      await context.think('I ask count.');
      await context.call('count', {});
      await until(async () => (await runs.events(accepted)).length === 4);
      return builtInAgent({ message: 'x', tools: [] }, context);
    };
    void runs.executor({ log: dying.log, agent: callsOne }).execute(await runs.claim(accepted));
    await until(dying.dead);
    expect(await runs.executor().execute(await runs.claim(accepted))).toBe('failed');
    expect(model.requests).toHaveLength(0);
    expect((await runs.events(accepted)).at(-1)).toMatchObject({ error: { code: 'INTERNAL_ERROR' } });
  });

  it('is left alone by a worker that comes back after it was taken over, and so is the model', async () => {
    const accepted = await runs.accept();
    const pieces = Array.from({ length: 100 }, (_, i) => `${i} `);
    model.script = (_request, at) => (at === 0 ? { text: pieces, pieceMs: 20 } : { text: ['Done.'] });
    const late = runs.executor().execute(await runs.claim(accepted));
    await until(async () => (await runs.events(accepted)).length >= 2);
    expect(await runs.executor().execute(await runs.claim(accepted))).toBe('completed');
    expect(await late).toBe('lost');
    await model.requests[0]?.closed;
    expect(model.requests[0]?.aborted).toBe(true);
    expect(textBySteps(await runs.events(accepted))).toEqual(['Done.']);
  });
});
