import { writeFileSync } from 'node:fs';
import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { catalogueFiles, catalogues, planRow, toolFile, toolRow } from '../support/catalogues.ts';
import { type LoggedEvent, ModelRuns } from '../support/model-runs.ts';
import { ModelServer, type ScriptedCall } from '../support/model-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let model: ModelServer;

beforeAll(async () => {
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
});

beforeEach(() => {
  model.requests.length = 0;
});

/** A model that requests these calls in one step, and answers when it has their results. */
function callingAtOnce(calls: readonly ScriptedCall[]): void {
  model.script = ({ body }) => (body.messages.some(({ role }) => role === 'tool') ? { text: ['Done.'] } : { calls });
}

const times = (n: number, name: string): ScriptedCall[] => Array.from({ length: n }, () => ({ name }));
const tools = [toolRow({ name: 'count', units: 3 }), toolRow({ name: 'other', units: 0 })];
const withPlan = (plan: Parameters<typeof planRow>[0]) =>
  ModelRuns.start(model, catalogues({ tools, plans: { pro: planRow(plan) } }));

const completed = (events: readonly LoggedEvent[]) => events.filter(({ type }) => type === 'tool_completed');
const codes = (events: readonly LoggedEvent[]) =>
  completed(events).map(({ success, error }) => (success ? 'ok' : (error as { code: string }).code));
const callNumber = ({ tool_call_id }: LoggedEvent) => Number(/_(\d+)$/.exec(String(tool_call_id))?.[1]);
/** Returns the results that the model received, in the order of its calls. */
const modelResults = () =>
  (model.requests.at(-1)?.body.messages ?? [])
    .filter(({ role }) => role === 'tool')
    .map(({ content }) => JSON.parse(content ?? '') as { result?: unknown; error?: { code: string } });

describe('the calls of one step of a model', () => {
  it('have a reservation each: those beyond the concurrency of the plan are refused to the model', async () => {
    const runs = await withPlan({ concurrency: 2 });
    callingAtOnce(times(3, 'count'));
    const userId = freshUserId();
    // The two running calls end only after the third has been refused.
    const count = async () => {
      await until(async () => completed(await runs.events({ userId })).length > 0);
      return { counted: 1 };
    };
    const { end, events } = await runs.run({ count }, { userId });
    expect(end).toBe('completed');
    const calls = events.filter(({ type }) => type.startsWith('tool_'));
    expect(calls.slice(0, 3).map((event) => [event.type, callNumber(event)])).toEqual([
      ['tool_executing', 1],
      ['tool_executing', 2],
      ['tool_executing', 3],
    ]);
    expect(codes(events)).toEqual(['RATE_LIMITED', 'ok', 'ok']);
    expect(completed(events).map(callNumber).toSorted()).toEqual([1, 2, 3]);
    expect(callNumber(completed(events)[0] as LoggedEvent)).toBe(3);
    expect(modelResults().map(({ error, result }) => error?.code ?? result)).toEqual([
      { counted: 1 },
      { counted: 1 },
      'RATE_LIMITED',
    ]);
    expect(await runs.refusals({ userId })).toBe(1);
    expect((await runs.summary({ userId })).under_way.calls).toBe(0);
  });

  it('count exactly against the daily quota in concurrent runs, and are charged once with their steps', async () => {
    const runs = await withPlan({ allowances: { count: 3 } });
    callingAtOnce(times(4, 'count'));
    const userId = freshUserId();
    const both = await Promise.all([runs.run({}, { userId }), runs.run({}, { userId })]);
    expect(both.map(({ end }) => end)).toEqual(['completed', 'completed']);
    const outcomes = codes(await runs.events({ userId })).toSorted();
    expect(outcomes).toEqual([...Array.from({ length: 5 }, () => 'QUOTA_EXCEEDED'), 'ok', 'ok', 'ok']);
    expect(await runs.refusals({ userId })).toBe(5);
    const records = await runs.records({ userId });
    expect(records.filter(({ tool }) => tool === 'count')).toHaveLength(3);
    expect(records.filter(({ tool }) => tool === 'model:m')).toHaveLength(4);
    const { today, tools: known, under_way } = await runs.summary({ userId });
    const units = records.reduce((all, record) => all + record.units, 0);
    expect(today).toMatchObject({ calls: 7, units });
    expect(units).toBeGreaterThanOrEqual(3 * 3 + 4);
    expect(known.find(({ tool }) => tool === 'count')?.limits).toMatchObject([{ limit: 3, used: 3 }]);
    expect(under_way.calls).toBe(0);
  });
});

const EVENTS = [
  'agent_started',
  'agent_thinking',
  'tool_executing',
  'tool_executing',
  'tool_completed',
  'tool_completed',
  'agent_thinking',
  'agent_completed',
];

describe('a step with a refused call and one that runs, whose worker died', () => {
  // The events of both calls' beginnings, and those of the refused call, are one append each.
  it.each([0, 1, 2, 3, 4, 5])('after append %i, is reported, counted and charged once', async (died) => {
    const runs = await withPlan({});
    callingAtOnce([{ name: 'count' }, { name: 'other' }]);
    const accepted = await runs.accept({ degraded: true });
    const dying = runs.dyingLog(died);
    void runs.executor({ log: dying.log }).execute(await runs.claim(accepted));
    await until(dying.dead);

    expect(await runs.executor().execute(await runs.claim(accepted))).toBe('completed');
    const events = await runs.events(accepted);
    expect(events.map(({ type }) => type)).toEqual(EVENTS);
    const byCall = completed(events).toSorted((a, b) => callNumber(a) - callNumber(b));
    expect(codes(byCall)).toEqual(['AUTH_SERVICE_UNAVAILABLE', 'ok']);
    expect(modelResults().map(({ error }) => error?.code)).toEqual(['AUTH_SERVICE_UNAVAILABLE', undefined]);
    expect(await runs.refusals(accepted)).toBe(1);
    const records = await runs.records(accepted);
    expect(records.map(({ tool }) => tool)).toEqual(['model:m', 'other', 'model:m']);
    const { today, under_way } = await runs.summary(accepted);
    const units = records.reduce((all, record) => all + record.units, 0);
    expect([under_way.calls, today]).toEqual([0, expect.objectContaining({ calls: 3, units })]);
  });
});

describe('a worker with a model', () => {
  it('answers degraded sessions with the free built-in agent, and all others with the model', async () => {
    const runs = await withPlan({});
    model.script = () => ({ text: ['From the model.'] });
    const agent = await runs.assembled();
    const degraded = await runs.run({ agent }, { degraded: true });
    expect(degraded.end).toBe('completed');
    expect(model.requests).toHaveLength(0);
    expect(await runs.records(degraded)).toEqual([]);
    expect(degraded.events.at(-1)?.final_response).not.toBe('From the model.');
    const sound = await runs.run({ agent });
    expect(sound.events.at(-1)).toMatchObject({ type: 'agent_completed', final_response: 'From the model.' });
    expect(model.requests).toHaveLength(1);
  });

  it('offers the tools as they are after a reload, and refuses one that was taken out', async () => {
    const permissions = { basic: toolFile.permissions.basic };
    const plans = { default: 'pro', plans: { pro: planRow() } };
    const sources = catalogueFiles({ tools: { permissions, tools }, plans });
    const known = new Catalogues(sources);
    const runs = await ModelRuns.start(model, known);
    const agent = await runs.assembled();
    const offered = () => model.requests.at(-1)?.body.tools?.map((tool) => tool.function);
    model.script = () => ({ text: ['Done.'] });
    await runs.run({ agent });
    expect(offered()).toMatchObject([{ name: 'count', description: 'count' }, { name: 'other' }]);

    const left = [toolRow({ name: 'count', description: 'Counts what there is.' })];
    writeFileSync(sources.tools, JSON.stringify({ permissions, tools: left }));
    expect(known.reload()).toMatchObject({ reloaded: true });
    callingAtOnce([{ name: 'other' }]);
    const { events } = await runs.run({ agent });
    expect(offered()).toMatchObject([{ name: 'count', description: 'Counts what there is.' }]);
    expect(offered()).toHaveLength(1);
    expect(codes(events)).toEqual(['TOOL_NOT_FOUND']);
  });
});
