import { beforeAll, describe, expect, it } from '@jest/globals';
import { UserData } from '../../src/accounts/user-data.ts';
import { AgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import type { AgentRunJob } from '../../src/jobs.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import type { InputAnswer } from '../../src/protocol/input.ts';
import type { Agent } from '../../src/runs/agent.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { RunExecutor } from '../../src/runs/run-executor.ts';
import { RunInputs } from '../../src/runs/run-inputs.ts';
import { Runs } from '../../src/runs/runs.ts';
import { runAgent } from '../../workers/run-agent.ts';
import { sweepRuns } from '../../workers/sweep-runs.ts';
import { catalogueFiles, planRow, toolFile, toolRow } from '../support/catalogues.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import { keysOf } from '../support/keys-of.ts';
import { startRun } from '../support/run-nodes.ts';
import { freshUserId } from '../support/tokens.ts';
import { toolNode, toolRequest, UNLIMITED } from '../support/tools.ts';
import { until } from '../support/until.ts';

const LIMIT = { allowed: Promise.resolve(), messages: 30 };
const DAY_MS = 24 * 3_600_000;
const TOOLS = ['guarded', 'free', 'ask_user'];
const agents = new AgentCatalogue([{ name: 'tester', description: 'a', tools: TOOLS }], 'tester');

let core: Core;
let files: Catalogues;
let runs: Runs;
let claims: RunClaims;
let inputs: RunInputs;
/** The jobs that a queue would hold, by their id. */
const jobs = new Map<string, AgentRunJob>();
const executions: string[] = [];

beforeAll(async () => {
  core = await startCore();
  const analytics = { ...toolFile.permissions.analytics, approval: true };
  const tools = [
    toolRow({ name: 'guarded', permission: 'analytics', units: 2 }),
    toolRow({ name: 'free' }),
    toolRow({ name: 'ask_user', executor: 'user', units: 0 }),
  ];
  const permissions = { basic: toolFile.permissions.basic, analytics };
  const plans = { default: 'pro', plans: { pro: planRow() } };
  files = new Catalogues(catalogueFiles({ plans, tools: { permissions, tools } }, 'file'));
  runs = new Runs({ ...core, queue, agents, clock: systemClock }, { timeoutMs: 10_000 });
  claims = new RunClaims({ ...core, agents }, { timeoutMs: 10_000 });
  inputs = new RunInputs({ ...core, queue, clock: systemClock });
});

const queue = {
  async add(job: AgentRunJob) {
    jobs.set(job.run_id, job);
  },
};

interface WorkOptions {
  readonly timeoutMs?: number;
  readonly inputExpiresMs?: number;
  readonly free?: () => Promise<void>;
}

/** @param run whose executions are counted */
function workerOf({ runId }: Started, agent: Agent, options: WorkOptions = {}) {
  const execute = (name: string) => async () => {
    if (name === 'free') await options.free?.();
    executions.push(`${runId} ${name}`);
    return { done: name };
  };
  const executors = { guarded: execute('guarded'), free: execute('free') };
  const { service: tools } = toolNode(core, { catalogues: files, executors });
  const deps = { ...core, claims, agents, agent, tools, clock: systemClock, logger: silentLogger };
  const { timeoutMs = 10_000, inputExpiresMs = 60_000 } = options;
  return { ...deps, executor: new RunExecutor(deps, { timeoutMs, inputExpiresMs }) };
}

/** A worker executes the run until it ends or waits. */
function work(run: Started, agent: Agent, options: WorkOptions = {}) {
  return runAgent({ user_id: run.userId, run_id: run.runId }, workerOf(run, agent, options));
}

interface Started {
  readonly userId: string;
  readonly runId: string;
}

async function start(): Promise<Started> {
  const started = { userId: freshUserId(), runId: newId('run') };
  await startRun(runs, { ...started, plan: 'pro', threadId: 'thread_1' });
  jobs.clear();
  return started;
}

const calling =
  (...calls: readonly (readonly [string, object?])[]): Agent =>
  async (_task, context) => {
    const results = await Promise.allSettled(calls.map(([tool, args = {}]) => context.call(tool, { ...args })));
    const outcomes = results.map((result) => {
      if (result.status === 'rejected') throw result.reason;
      return result.value;
    });
    return { final_response: JSON.stringify(outcomes.map(({ result, error }) => result ?? error)), summary: '' };
  };

async function events({ userId }: Started): Promise<(Record<string, unknown> & { readonly type: string })[]> {
  const { epoch } = await core.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
  const { entries } = await core.eventLog.read(userId, { epoch, after: 0, delivered: undefined }, 100);
  return entries.map(({ json, type }) => ({ ...(JSON.parse(json) as Record<string, unknown>), type }));
}

const types = async (run: Started) => (await events(run)).map(({ type }) => type);
const answerOf = async (run: Started) => JSON.parse(String((await events(run)).at(-1)?.final_response));

async function requests({ userId, runId }: Started) {
  return (await runs.status(userId, runId)).input_requests ?? [];
}

async function answer(run: Started, given: InputAnswer, at = 0) {
  const request = (await requests(run))[at];
  if (!request) throw new Error('the run asks nothing');
  return inputs.answer(run.userId, { runId: run.runId, inputId: request.input_id, answer: given });
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'none',
    (error: { code?: string }) => error.code,
  );
const executed = (run: Started) =>
  executions.filter((one) => one.startsWith(run.runId)).map((one) => one.split(' ')[1]);
async function inFlight({ userId }: Started): Promise<number> {
  const [seconds, micros] = await core.redis.time();
  const now = Number(seconds) * 1_000 + Number(micros) / 1_000;
  return core.redis.zcount(core.keys.user(userId).runsInFlight, `(${now}`, '+inf');
}
const sweep = () => sweepRuns({ claims, inputs, log: core.log, clock: systemClock, logger: silentLogger });

describe('a call that needs an approval', () => {
  const agent = calling(['guarded', { topic: 'costs' }]);

  it('suspends the run, and is executed once by another worker after the answer', async () => {
    const run = await start();
    expect(await work(run, agent)).toBe('waiting');
    expect(executed(run)).toEqual([]);
    expect(await runs.status(run.userId, run.runId)).toMatchObject({ status: 'waiting' });
    const [request] = await requests(run);
    expect(request).toMatchObject({ kind: 'approval', tool_name: 'guarded', arguments: { topic: 'costs' } });
    expect(await answer(run, { action: 'accept' })).toEqual({ repeated: false });
    expect([...jobs.values()]).toEqual([{ user_id: run.userId, run_id: run.runId }]);
    expect(await work(run, agent)).toBe('completed');
    expect(executed(run)).toEqual(['guarded']);
    const all = await events(run);
    expect(all.map(({ type }) => type)).toEqual([
      ...['agent_started', 'tool_executing', 'input_requested', 'input_received', 'tool_completed', 'agent_completed'],
    ]);
    const call = { tool_call_id: all[1]?.tool_call_id, tool_name: 'guarded' };
    expect(all[2]).toMatchObject({ ...call, input_id: request?.input_id, expires_at: request?.expires_at });
    expect(all[3]).toMatchObject({ ...call, input_id: request?.input_id, action: 'accept', run_id: run.runId });
  });

  it.each([
    { action: 'decline', code: 'APPROVAL_DECLINED' },
    { action: 'cancel', code: 'APPROVAL_DECLINED' },
  ] as const)('is refused after the answer $action', async ({ action, code }) => {
    const run = await start();
    await work(run, agent);
    await answer(run, { action });
    expect(await work(run, agent)).toBe('completed');
    expect(await answerOf(run)).toMatchObject([{ code, tool_name: 'guarded' }]);
    expect(executed(run)).toEqual([]);
  });

  it('is refused once the request has expired, and a late answer gets INPUT_EXPIRED', async () => {
    const run = await start();
    await work(run, agent, { inputExpiresMs: 5 });
    const [request] = await requests(run);
    await until(async () => (await claims.overdue()).some(({ run_id }) => run_id === run.runId));
    const late = () =>
      inputs.answer(run.userId, { runId: run.runId, inputId: request?.input_id ?? '', answer: { action: 'accept' } });
    expect(await codeOf(late())).toBe('INPUT_EXPIRED');
    expect(await sweep()).toBe(0);
    expect(await codeOf(late())).toBe('INPUT_EXPIRED');
    expect(jobs.size).toBe(1);
    expect(await work(run, agent)).toBe('completed');
    expect(await types(run)).toContain('input_expired');
    expect(await answerOf(run)).toMatchObject([{ code: 'INPUT_EXPIRED' }]);
  });

  it('leaves the run in flight after the request has expired, until the run has ended', async () => {
    const run = await start();
    await work(run, agent, { inputExpiresMs: 5 });
    await until(async () => (await claims.overdue()).some(({ run_id }) => run_id === run.runId));
    expect(await inFlight(run)).toBe(1);
    await sweep();
    expect(await inFlight(run)).toBe(1);
    expect(await work(run, agent)).toBe('completed');
    expect(await inFlight(run)).toBe(0);
  });

  it('needs none outside a run, where the user makes the call', async () => {
    const executors = { guarded: async () => ({ done: true }) };
    const { service } = toolNode(core, { catalogues: files, executors });
    const { finished } = await service.call(toolRequest(freshUserId(), { tool: 'guarded' }), UNLIMITED);
    expect(await finished).toMatchObject({ success: true });
  });
});

describe('an answer', () => {
  const agent = calling(['guarded']);

  it('counts once when many answer at the same moment on several nodes', async () => {
    const run = await start();
    await work(run, agent);
    const [request] = await requests(run);
    const nodes = [inputs, ...[1, 2].map(() => new RunInputs({ ...core, queue, clock: systemClock }))];
    const given = Array.from({ length: 30 }, (_, at) => {
      const one = {
        runId: run.runId,
        inputId: request?.input_id ?? '',
        answer: { action: at % 2 ? 'decline' : 'accept' } as const,
      };
      return nodes[at % 3]?.answer(run.userId, one).then(
        ({ repeated }) => `${one.answer.action} ${repeated}`,
        (error: { code?: string }) => `${one.answer.action} ${error.code}`,
      );
    });
    const outcomes = await Promise.all(given);
    const first = outcomes.filter((outcome) => outcome?.endsWith(' false'));
    expect(first).toHaveLength(1);
    const other = first[0]?.startsWith('accept') ? 'decline' : 'accept';
    expect(outcomes.filter((outcome) => outcome === `${other} INPUT_ALREADY_ANSWERED`)).toHaveLength(15);
    expect(await work(run, agent)).toBe('completed');
    expect((await types(run)).filter((type) => type === 'input_received')).toHaveLength(1);
  });

  it('continues the run although the queue refused its job at first', async () => {
    const run = await start();
    await work(run, agent);
    const refusing = { add: () => Promise.reject(new Error('no queue')) };
    const broken = new RunInputs({ ...core, queue: refusing, clock: systemClock });
    const [request] = await requests(run);
    const response = { runId: run.runId, inputId: request?.input_id ?? '', answer: { action: 'accept' } as const };
    expect(await codeOf(broken.answer(run.userId, response))).toBe('OVERLOADED');
    expect(await inputs.answer(run.userId, response)).toEqual({ repeated: true });
    expect(jobs.size).toBe(1);
  });

  it('of another user, or to another request, is refused', async () => {
    const run = await start();
    await work(run, agent);
    const [request] = await requests(run);
    const given = { runId: run.runId, inputId: request?.input_id ?? '', answer: { action: 'accept' } as const };
    expect(await codeOf(inputs.answer(freshUserId(), given))).toBe('RUN_NOT_FOUND');
    expect(await codeOf(inputs.answer(run.userId, { ...given, inputId: 'input_x' }))).toBe('INPUT_NOT_FOUND');
    expect(await codeOf(inputs.answer(run.userId, { ...given, runId: 'run_x' }))).toBe('RUN_NOT_FOUND');
    expect(jobs.size).toBe(0);
  });

  it('that arrives while the worker is still busy is used without a further job', async () => {
    const run = await start();
    const parallel = calling(['guarded'], ['free']);
    let answered = false;
    const free = async () => {
      await until(async () => (await requests(run)).length === 1);
      await answer(run, { action: 'accept' });
      answered = true;
    };
    expect(await work(run, parallel, { free: () => (answered ? Promise.resolve() : free()) })).toBe('completed');
    expect(jobs.size).toBe(0);
    expect(executed(run).toSorted()).toEqual(['free', 'guarded']);
  });
});

describe('a run with several calls', () => {
  it.each([
    [['guarded'], ['free']],
    [['free'], ['guarded']],
    [['guarded'], ['guarded'], ['free']],
  ] as const)('announces and executes each once: %j', async (...calls) => {
    const run = await start();
    const agent = calling(...(calls as unknown as readonly (readonly [string])[]));
    let end = await work(run, agent);
    for (let answers = 0; end === 'waiting' && answers < 3; answers++) {
      await answer(run, { action: 'accept' });
      end = await work(run, agent);
    }
    expect(end).toBe('completed');
    expect(executed(run).toSorted()).toEqual(calls.map(([tool]) => tool).toSorted());
    const all = await events(run);
    const ids = (type: string) => all.filter((event) => event.type === type).map(({ tool_call_id }) => tool_call_id);
    expect(ids('tool_executing')).toEqual([...new Set(ids('tool_executing'))]);
    expect(ids('tool_completed').toSorted()).toEqual(ids('tool_executing').toSorted());
    expect(await core.redis.zcard(core.keys.user(run.userId).reservations)).toBe(0);
  });
});

describe('a run that waits', () => {
  const agent = calling(['guarded']);

  it('asks once although its worker died before it suspended the run', async () => {
    const run = await start();
    const dying = Object.create(claims) as RunClaims;
    dying.suspend = () => new Promise<never>(() => undefined);
    const first = await claims.claim(run.userId, run.runId);
    if (first.outcome !== 'claimed') throw new Error('claimed');
    const { service: tools } = toolNode(core, { catalogues: files, executors: { guarded: async () => ({}) } });
    const deps = { ...core, claims: dying, agents, agent, tools, clock: systemClock, logger: silentLogger };
    void new RunExecutor(deps, { timeoutMs: 10_000, inputExpiresMs: 60_000 }).execute(first.run);
    await until(async () => (await requests(run)).length === 1);
    expect(await work(run, agent)).toBe('waiting');
    await answer(run, { action: 'accept' });
    expect(await work(run, agent)).toBe('completed');
    expect((await types(run)).filter((type) => type === 'input_requested')).toHaveLength(1);
  });

  it('is not ended by its time limit, which continues after the answer', async () => {
    const run = await start();
    await work(run, agent, { timeoutMs: 300 });
    const waitingSince = Date.now();
    await until(() => Date.now() - waitingSince > 400);
    expect(await sweep()).toBe(0);
    await answer(run, { action: 'accept' });
    expect(await work(run, agent, { timeoutMs: 300 })).toBe('completed');
  });

  it('is ended by a cancellation', async () => {
    const run = await start();
    await work(run, agent);
    expect(await runs.cancel(run.userId, run.runId, LIMIT)).toBe('asked');
    expect(jobs.size).toBe(1);
    expect(await work(run, agent)).toBe('cancelled');
    expect((await types(run)).at(-1)).toBe('agent_cancelled');
    expect(await requests(run)).toEqual([]);
    const left = await core.redis.hkeys(core.keys.user(run.userId).run(run.runId));
    expect(left.filter((field) => field.includes(':'))).toEqual([]);
  });

  it('continues with its answer although its last worker confirms it before another one claims it', async () => {
    const run = await start();
    const job = { user_id: run.userId, run_id: run.runId };
    const last = workerOf(run, agent);
    expect(await runAgent(job, last, { firstOf: 'job_1' })).toBe('waiting');
    await last.executor.confirmRuns();
    expect(await runs.status(run.userId, run.runId)).toMatchObject({ status: 'waiting' });
    await answer(run, { action: 'accept' });
    await last.executor.confirmRuns();
    expect(await runAgent(job, workerOf(run, agent), { firstOf: 'job_2' })).toBe('completed');
    expect(executed(run)).toEqual(['guarded']);
  });

  it('waits again after Redis has lost its suspension, when its worker reconnects', async () => {
    const run = await start();
    const keys = core.keys.user(run.userId);
    const worker = workerOf(run, agent);
    await runAgent({ user_id: run.userId, run_id: run.runId }, worker);
    // As it was before it was suspended.
    await core.redis.hdel(keys.run(run.runId), 'waiting_since', 'remaining_ms');
    await core.redis.hset(keys.run(run.runId), 'status', 'running');
    await core.redis.zadd(keys.activeRuns, '1', `${run.userId} ${run.runId}`);
    await worker.executor.confirmRuns();
    expect(await sweep()).toBe(0);
    await answer(run, { action: 'accept' });
    expect(jobs.size).toBe(1);
    expect(await work(run, agent)).toBe('completed');
  });

  it('is found by an erasure a day later, although the user has started others since', async () => {
    const run = await start();
    const keys = core.keys.user(run.userId);
    await work(run, agent, { inputExpiresMs: 7 * DAY_MS });
    expect(await core.redis.pttl(keys.runs)).toBeGreaterThan(6 * DAY_MS);
    await core.redis.zadd(
      keys.runs,
      `${Date.now() - 2 * DAY_MS}`,
      run.runId,
      `${Date.now() - 2 * DAY_MS}`,
      'run_expired',
    );
    // The next run begins a bucket, and prunes the list.
    await core.redis.del(keys.quota);
    await startRun(runs, { userId: run.userId, plan: 'pro', threadId: 'thread_1' });
    expect(await core.redis.pttl(keys.runs)).toBeGreaterThan(6 * DAY_MS);
    expect(await core.redis.zscore(keys.runs, 'run_expired')).toBeNull();
    await core.redis.hset(keys.account, 'erasure', 'erased_1');
    await new UserData(core).erase(run.userId, 'erased_1');
    expect(await keysOf(core.redis, `*${run.userId}*`)).toEqual([keys.account]);
  });

  it('still waits after a worker executed it again without need', async () => {
    const run = await start();
    await work(run, agent);
    expect(await work(run, agent)).toBe('waiting');
    expect(await runs.status(run.userId, run.runId)).toMatchObject({ status: 'waiting' });
    expect((await types(run)).filter((type) => type === 'input_requested')).toHaveLength(1);
  });
});

describe('a question of an agent', () => {
  const form = {
    type: 'object',
    properties: { city: { type: 'string', maxLength: 20 }, nights: { type: 'integer', minimum: 1 } },
    required: ['city'],
  };

  it.each([
    { args: { message: 'Which?', choices: ['a', 'b'] }, wrong: { choice: 'c' }, right: { choice: 'b' } },
    { args: { message: 'Where?', form }, wrong: { city: 'x', nights: 0 }, right: { city: 'Oslo', nights: 2 } },
    { args: { message: 'Where?', form }, wrong: { city: 'x', other: 1 }, right: { city: 'Oslo' } },
    { args: { message: 'Why?' }, wrong: {}, right: { answer: 'because' } },
  ])('takes an answer that fits $args.message and no other', async ({ args, wrong, right }) => {
    const run = await start();
    const agent = calling(['ask_user', args]);
    expect(await work(run, agent)).toBe('waiting');
    expect(await codeOf(answer(run, { action: 'accept', content: wrong }))).toBe('FORMAT_ERROR');
    await answer(run, { action: 'accept', content: right });
    expect(await work(run, agent)).toBe('completed');
    expect(await answerOf(run)).toEqual([{ action: 'accept', content: right }]);
  });

  it('of a wrong form is an error for the agent, and asks nothing', async () => {
    const run = await start();
    const pattern = { type: 'object', properties: { a: { type: 'string', pattern: '(a+)+$' } } };
    expect(await work(run, calling(['ask_user', { message: 'x', form: pattern }]))).toBe('completed');
    expect(await answerOf(run)).toMatchObject([{ code: 'FORMAT_ERROR' }]);
    expect(await types(run)).not.toContain('input_requested');
  });

  it('outside a run is TOOL_NOT_AVAILABLE', async () => {
    const { service } = toolNode(core, { catalogues: files, executors: {} });
    const request = toolRequest(freshUserId(), { tool: 'ask_user', args: { message: 'x' } });
    expect(await codeOf(service.call(request, UNLIMITED))).toBe('TOOL_NOT_AVAILABLE');
  });
});
