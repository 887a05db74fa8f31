import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { inputRequired, inputResponse } from '@modelcontextprotocol/server';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { MAX_INPUT_ROUNDS } from '../../src/limits/quotas.ts';
import type { ToolCallRequest, ToolResult } from '../../src/tools/tool-call.ts';
import { sweepCalls } from '../../workers/sweep-calls.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import { freshUserId } from '../support/tokens.ts';
import { anyCaller, toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';
import { until } from '../support/until.ts';
import { HttpUpstream, type SeenRequest } from '../support/upstreams/http-upstream.ts';
import { type RunTool, text } from '../support/upstreams/mcp-script.ts';
import { httpRow, type UpstreamNode, upstreamNode, wordsOf } from '../support/upstreams/upstream-node.ts';

type Json = Readonly<Record<string, unknown>>;

const EVERYTHING = { elicitation: {}, sampling: {}, roots: {} };
const named = (value: string) => ({ who: { action: 'accept', content: { name: value } } });

function inputRequest(words: string) {
  const properties = { name: { type: 'string' as const } };
  return inputRequired.elicit({ message: words, requestedSchema: { type: 'object', properties, required: ['name'] } });
}

/** Requests a name a given number of times; the request state counts the rounds. */
const greet: RunTool = ({ times = 1 }, { mcpReq }) => {
  const requested = Number(mcpReq.requestState() ?? 0);
  if (requested < Number(times)) {
    return inputRequired({
      inputRequests: { who: inputRequest(`Who? (${requested})`) },
      requestState: String(requested + 1),
    });
  }
  const answer = inputResponse(mcpReq.inputResponses, 'who');
  return text(`Hello, ${answer.kind === 'elicit' ? answer.content?.name : 'nobody'}!`);
};

let core: Core;
let upstream: HttpUpstream;
let userId: string;
/** Final results of `held` wait for it. */
let open: Promise<void>;
let release: () => void;

beforeAll(async () => {
  core = await startCore();
  const held: RunTool = async (args, context) => {
    const answer = await greet(args, context);
    if (!('inputRequests' in answer)) await open;
    return answer;
  };
  // Results may have members of any name.
  const odd: RunTool = () => ({ ...text('done'), questions: { inputRequests: { who: inputRequest('Who?') } } });
  upstream = await HttpUpstream.start(
    { tools: { greet: { run: greet }, held: { run: held }, odd: { run: odd } } },
    'file',
  );
});

beforeEach(() => {
  userId = freshUserId();
  upstream.requests.length = 0;
  open = new Promise((resolve) => {
    release = resolve;
  });
});

const metaOf = (request: SeenRequest | undefined) => (request?.message.params?._meta ?? {}) as Json;
const runs = () => upstream.received('tools/call').length;

interface NodeOptions {
  readonly asks?: readonly string[];
  readonly plan?: Json;
}

/** A separate process, with the same caller as the others. */
async function node({ asks = ['elicitation'], plan = {} }: NodeOptions = {}): Promise<UpstreamNode> {
  const row = httpRow(upstream.url, ['greet', 'held', 'odd'], { asks, concurrency: 1_000 });
  const one = upstreamNode(core, [row], {}, { userId, plan });
  await one.discovered('greet');
  await one.discovered('held');
  return one;
}

/** A call by a client that supports input; `answer` continues it with the requested input. */
function calling(request: Partial<ToolCallRequest> = {}) {
  const same = { callId: newId('call'), ...request };
  const capabilities = EVERYTHING;
  return {
    ...same,
    begin: { ...same, input: { capabilities, inputResponses: undefined, requestState: undefined, answered: 0 } },
    answer({ inputRequired: requested }: ToolResult, inputResponses: Json = named('Ada')) {
      const { requestState, server, round = 0 } = requested ?? {};
      return { ...same, input: { capabilities, inputResponses, requestState, server, answered: round } };
    },
  };
}

/** Returns the user's calls in flight, counted uses and records. */
async function account(of: UpstreamNode) {
  const { quota, reservations } = core.keys.user(userId);
  const fields = Object.keys(await core.redis.hgetall(quota));
  const uses = fields.filter((field) => !field.startsWith('questions_') && field !== 'idempotency_keys_per_hour');
  return {
    reservations: await core.redis.zcard(reservations),
    uses: uses.length,
    records: (await of.records()).length,
  };
}

const NOTHING = { reservations: 0, uses: 0, records: 0 };

async function eventsOf(callId: string): Promise<string[]> {
  const entries = await core.redis.xrange(core.keys.user(userId).log, '-', '+');
  const ofCall = entries.filter(([, fields]) => fields.some((field) => field.includes(callId)));
  return ofCall.map(([, fields]) => fields[1] ?? '');
}

describe('a tool that asks its caller', () => {
  it('costs nothing and holds nothing while it asks, and is one call, on whichever node it goes on', async () => {
    const [first, second] = [await node(), await node()];
    const call = calling();
    const requested = await first.call('greet', {}, call.begin);
    expect(requested).toMatchObject({
      success: false,
      error: { code: 'INPUT_REQUIRED' },
      inputRequired: { inputRequests: { who: { method: 'elicitation/create' } }, requestState: '1', round: 1 },
      usage_record_id: null,
    });
    expect(await account(first)).toEqual(NOTHING);
    const done = await second.call('greet', {}, call.answer(requested));
    expect(wordsOf(done)).toBe('Hello, Ada!');
    expect(done).toMatchObject({ tool_call_id: call.callId, repeated: false });
    expect(await second.records()).toMatchObject([{ status: 'success', units: 7 }]);
    expect(await account(second)).toMatchObject({ reservations: 0, records: 1 });
    const ids = upstream.received('tools/call').map((request) => metaOf(request)['tollgate/toolCallId']);
    expect(ids).toEqual([call.callId, call.callId]);
    const pair = ['tool_executing', 'tool_completed'];
    expect(await eventsOf(call.callId)).toEqual([...pair, ...pair]);
  });

  it('tells no event and no log what it asked or was answered', async () => {
    const one = await node();
    const call = calling();
    const requested = await one.call('greet', {}, call.begin);
    await one.call('greet', {}, call.answer(requested, named('a secret')));
    const log = JSON.stringify(await core.redis.xrange(core.keys.user(userId).log, '-', '+'));
    expect(log).not.toContain('Who?');
    // Only the result contains it.
    expect(log.split('a secret')).toHaveLength(2);
  });

  it('succeeds again when an answer comes twice: it runs once, is charged once, and answers twice', async () => {
    const [first, second] = [await node(), await node()];
    const call = calling();
    const requested = await first.call('held', {}, call.begin);
    const twice = [first, second].map((one) => one.call('held', {}, call.answer(requested)));
    await until(() => runs() === 2);
    release();
    const seen = await Promise.all(twice);
    expect(seen.map(wordsOf)).toEqual(['Hello, Ada!', 'Hello, Ada!']);
    // A late answer gets the same outcome, even if it differs.
    const late = await second.call('held', {}, call.answer(requested, named('Eve')));
    expect([wordsOf(late), late.repeated]).toEqual(['Hello, Ada!', true]);
    expect(runs()).toBe(2);
    expect(await account(first)).toMatchObject({ reservations: 0, records: 1 });
  });

  it('asks the same again under the same key, and has its outcome under it for everybody afterwards', async () => {
    const [first, second] = [await node(), await node()];
    const call = calling({ idempotencyKey: 'k' });
    const requested = await first.call('greet', {}, call.begin);
    const again = await second.call('greet', {}, call.begin);
    expect(again).toMatchObject({ repeated: true, inputRequired: requested.inputRequired });
    // Over a transport without input requests the call has the usual outcome there.
    const chat = await second.call('greet', {}, { callId: call.callId, idempotencyKey: 'k' });
    expect(chat).toMatchObject({ success: false, error: { code: 'INPUT_REQUIRED' } });
    expect(chat).not.toHaveProperty('inputRequired');
    expect(runs()).toBe(1);
    await second.call('greet', {}, call.answer(requested));
    const late = await first.call('greet', {}, call.begin);
    expect([wordsOf(late), late.repeated]).toEqual(['Hello, Ada!', true]);
    await expect(first.call('greet', { times: 2 }, call.begin)).rejects.toMatchObject({ code: 'IDEMPOTENCY_CONFLICT' });
    expect(runs()).toBe(2);
    expect(await account(first)).toMatchObject({ reservations: 0, records: 1 });
  });

  it('may ask several times, and is given an old answer only what came of it', async () => {
    const one = await node();
    const call = calling();
    const first = await one.call('greet', { times: 2 }, call.begin);
    const second = await one.call('greet', { times: 2 }, call.answer(first));
    expect(second.inputRequired).toMatchObject({ round: 2, requestState: '2' });
    const repeated = await one.call('greet', { times: 2 }, call.answer(first));
    expect(repeated).toMatchObject({ repeated: true, inputRequired: second.inputRequired });
    expect(runs()).toBe(2);
    expect(wordsOf(await one.call('greet', { times: 2 }, call.answer(second, named('Bea'))))).toBe('Hello, Bea!');
  });

  it(`fails when it asks more than ${MAX_INPUT_ROUNDS} times`, async () => {
    const one = await node();
    const call = calling();
    let seen = await one.call('greet', { times: 99 }, call.begin);
    for (let requested = 1; requested < MAX_INPUT_ROUNDS; requested++)
      seen = await one.call('greet', { times: 99 }, call.answer(seen));
    expect(seen.inputRequired?.round).toBe(MAX_INPUT_ROUNDS);
    const last = await one.call('greet', { times: 99 }, call.answer(seen));
    expect(last).toMatchObject({ success: false, error: { code: 'TOOL_FAILED' } });
    expect(await one.records()).toMatchObject([{ status: 'error', units: 0 }]);
    expect((await account(one)).reservations).toBe(0);
  });

  it('starts anew for an answer that comes too late, instead of running with a forgotten state', async () => {
    const one = await node();
    const call = calling();
    const requested = await one.call('greet', {}, call.begin);
    const entry = core.keys.user(userId).call(call.callId);
    // A quarter of an hour, by the clock of Redis.
    const left = await core.redis.pttl(entry);
    expect(left).toBeGreaterThan(14 * 60_000);
    expect(left).toBeLessThanOrEqual(15 * 60_000);
    await core.redis.del(entry);
    await expect(one.call('greet', {}, call.answer(requested))).rejects.toMatchObject({
      code: 'REQUEST_STATE_INVALID',
    });
    expect(runs()).toBe(1);
    expect(await account(one)).toEqual(NOTHING);
  });

  it('passes its input to no other server, even if that has the name of the tool by now', async () => {
    const one = await node();
    const call = calling();
    const requested = await one.call('greet', {}, call.begin);
    const { input } = call.answer(requested);
    const again = await one.call('greet', {}, { ...call, input: { ...input, server: 'another' } });
    expect(again.inputRequired).toMatchObject({ round: 2, requestState: '1' });
    const sent = upstream.received('tools/call')[1]?.message.params;
    expect(sent).not.toHaveProperty('requestState');
    expect(sent).not.toHaveProperty('inputResponses');
  });

  it('asks by its answer and by nothing that a result may have in it', async () => {
    const one = await node();
    expect(await one.call('odd', {}, calling().begin)).toMatchObject({ success: true, result: { content: [{}] } });
  });

  it('is a failure like any other for who cannot be asked', async () => {
    const one = await node();
    const result = await one.call('greet');
    expect(result).toMatchObject({ success: false, error: { code: 'TOOL_FAILED' } });
    expect(result).not.toHaveProperty('inputRequired');
    expect(await one.records()).toMatchObject([{ status: 'error', units: 0 }]);
  });
});

describe('what a caller must be able to do', () => {
  it('is named if the caller has not declared it, costs nothing, and leaves the key usable', async () => {
    const one = await node();
    const call = calling({ idempotencyKey: 'k' });
    const seen = await one.call('greet', {}, { ...call.begin, input: { ...call.begin.input, capabilities: {} } });
    const requiredCapabilities = { elicitation: { form: {} } };
    expect(seen).toMatchObject({ success: false, error: { code: 'MISSING_CLIENT_CAPABILITY', requiredCapabilities } });
    expect(await account(one)).toEqual(NOTHING);
    expect((await one.call('greet', {}, call.begin)).inputRequired?.round).toBe(1);
  });

  it('is not sent unless the operator allows it', async () => {
    const one = await node({ asks: ['sampling', 'roots'] });
    const result = await one.call('greet', {}, calling().begin);
    expect(result).toMatchObject({ success: false, error: { code: 'TOOL_FAILED' } });
    const sent = metaOf(upstream.received('tools/call')[0]);
    expect(sent['io.modelcontextprotocol/clientCapabilities']).toEqual({ sampling: {}, roots: {} });
  });
});

describe('the limits of a user', () => {
  it('are exact: of calls that have asked, as many go on as the plan allows', async () => {
    const plan = { allowances: { greet: 2 } };
    const nodes = [await node({ plan }), await node({ plan })];
    const at = (index: number) => nodes[index % 2] as UpstreamNode;
    const calls = Array.from({ length: 5 }, () => calling());
    const requested: ToolResult[] = [];
    // One after the other, because a call has a reservation while its request is being produced.
    for (const [index, call] of calls.entries()) requested.push(await at(index).call('greet', {}, call.begin));
    expect(requested.every(({ inputRequired: pending }) => pending)).toBe(true);
    const going = await Promise.allSettled(
      calls.map((call, index) => at(index + 1).call('greet', {}, call.answer(requested[index] as ToolResult))),
    );
    expect(going.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
    for (const one of going) {
      if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'QUOTA_EXCEEDED' });
    }
    expect(await account(at(0))).toMatchObject({ reservations: 0, records: 2 });
  });

  it('bound the questions that come to nothing', async () => {
    const one = await node({ plan: { allowances: { greet: 1 } } });
    // One more than the rounds of a call: the answer to the last input request must fit.
    for (let requested = 0; requested <= MAX_INPUT_ROUNDS; requested++) await one.call('greet', {}, calling().begin);
    const before = runs();
    const refused = one.call('greet', {}, calling().begin);
    await expect(refused).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: expect.any(Number) });
    expect(runs()).toBe(before);
    // A call without input support is not delayed.
    expect(await one.call('greet')).toMatchObject({ error: { code: 'TOOL_FAILED' } });
  });
});

describe('calls whose answers come in any order, often and from any node', () => {
  const CALLS = 40;
  const ALLOWED = 25;
  const COUNTED = ['QUOTA_EXCEEDED', 'RATE_LIMITED'];

  it('run once per input request, have one outcome each, and count and charge once per end', async () => {
    const plan = { allowances: { greet: ALLOWED } };
    const nodes = [await node({ plan }), await node({ plan })];
    const outcomes = new Map<string, Set<unknown>>();
    let turn = 0;
    const send = async (request: Partial<ToolCallRequest> & { readonly callId: string }, args: Json) => {
      turn += 1;
      const one = nodes[turn % 2] as UpstreamNode;
      const seen = await one.call('greet', args, request).catch((error: { readonly code?: string }) => {
        if (!COUNTED.includes(error.code ?? '')) throw error;
        return undefined;
      });
      if (!seen || seen.inputRequired) return seen;
      const known = outcomes.get(request.callId) ?? new Set();
      outcomes.set(request.callId, known.add(wordsOf(seen)));
      return seen;
    };
    const play = async (at: number) => {
      const call = calling(at % 2 ? { idempotencyKey: `k${at}` } : {});
      const args = { times: 1 + (at % 3) };
      const requested: ToolResult[] = [];
      const collect = (seen: ToolResult | undefined) => seen?.inputRequired && requested.push(seen);
      collect(await send(call.begin, args));
      for (let step = 0; step < 4 && requested.length > 0; step++) {
        // The last input request and the first, answered concurrently and differently, and a repetition of the key
        // without an answer.
        const answered = [requested.at(-1), requested.at(-1), requested[0]] as ToolResult[];
        const again = answered.map((inputRequest, by) => send(call.answer(inputRequest, named(`${step}.${by}`)), args));
        if (at % 2) again.push(send(call.begin, args));
        for (const seen of await Promise.all(again)) collect(seen);
      }
    };
    await Promise.all(Array.from({ length: CALLS }, (_, at) => play(at)));
    expect([...outcomes.values()].filter(({ size }) => size !== 1)).toEqual([]);
    const records = await (nodes[0] as UpstreamNode).records();
    expect(records.filter(({ status, units }) => status === 'success' && units === 7)).toHaveLength(outcomes.size);
    expect(records).toHaveLength(outcomes.size);
    expect(records.length).toBeLessThanOrEqual(ALLOWED);
    expect(records.length).toBeGreaterThan(0);
    const { quota, reservations } = core.keys.user(userId);
    expect(await core.redis.zcard(reservations)).toBe(0);
    const [uses, questions] = await core.redis.hmget(quota, 'greet_per_day', 'questions_greet_per_day');
    expect([sumOf(uses), sumOf(uses) + sumOf(questions)]).toEqual([records.length, runs()]);
  });

  /** Parses the buckets of a limit: "<bucket> <uses> …". */
  const sumOf = (packed: string | null | undefined) =>
    (packed ?? '').split(' ').reduce((sum, field, at) => (at % 2 ? sum + Number(field) : sum), 0);
});

describe('a call that has gone on', () => {
  const files = async () => (await node()).catalogues;

  it('is ended from outside when its node is gone, once, and its answer is no use any more', async () => {
    const catalogues = await files();
    const executors = {};
    const never = () => () => new Promise<never>(() => undefined);
    const dying = toolNode(core, { catalogues, executors, upstream: never, reservationMs: 200 });
    const one = await node();
    const call = calling();
    const requested = await one.call('greet', {}, call.begin);
    const request = toolRequest(userId, { tool: 'greet', caller: anyCaller('one'), ...call.answer(requested) });
    await dying.service.call(request, UNLIMITED);
    const sweep = () => sweepCalls({ calls: dying.calls, clock: systemClock, logger: silentLogger });
    await until(async () => (await sweep()) === 1);
    const seen = await one.call('greet', {}, call.answer(requested));
    expect(seen).toMatchObject({ success: false, repeated: true, error: { code: 'TOOL_FAILED' } });
    expect(runs()).toBe(1);
    expect(await one.records()).toMatchObject([{ status: 'error', units: 0 }]);
    expect((await account(one)).reservations).toBe(0);
  });

  it('is not ended by the end of its question, should that be sent again', async () => {
    const catalogues = await files();
    const { calls, quotas } = toolNode(core, { catalogues, executors: {} });
    const tool = catalogues.tools.get('greet');
    if (!tool) throw new Error('there is no such tool');
    const callId = newId('call');
    const reservation = quotas.reservationFor({ callId, tool, caller: anyCaller('one'), mayRequestInput: true });
    const details = {
      ...{ tool: 'greet', permission: tool.permission, plan: 'one', thread_id: 't', request_id: null },
      ...{ idempotency_key: null, transport: 'mcp', started_at: Date.now() },
    };
    const begin = (answered: number) =>
      calls.begin({ userId, callId, args: {}, details: { ...details, answered }, reservation, messages: 1_000 });
    const requests = { inputRequests: {}, requestState: 's', server: 'remote', round: 1 };
    const outcome = { success: false, inputRequired: requests, duration_ms: 1, usage_record_id: null };
    const end = () =>
      calls.end({
        userId,
        callId,
        details,
        ending: { kind: 'input_required', outcome, round: 1, commit: reservation.inputRequired },
      });
    expect(await begin(0)).toMatchObject({ kind: 'begun' });
    expect(await end()).toEqual(outcome);
    expect(await end()).toEqual(outcome);
    expect(await begin(1)).toMatchObject({ kind: 'begun' });
    expect(await end()).toEqual(outcome);
    expect(await begin(1)).toMatchObject({ kind: 'running' });
    expect(await core.redis.zcard(core.keys.user(userId).reservations)).toBe(1);
    expect(await eventsOf(callId)).toEqual(['tool_executing', 'tool_completed', 'tool_executing']);
    // It counted once.
    const counted = await core.redis.hget(core.keys.user(userId).quota, 'questions_basic_per_hour');
    expect(counted).toMatch(/^\d+ 1$/);
  });
});
