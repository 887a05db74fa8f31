import { beforeAll, describe, expect, it } from '@jest/globals';
import { AgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { Catalogues } from '../../src/catalogue/catalogues.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { AcceptedRuns } from '../../src/runs/accepted-runs.ts';
import type { Agent } from '../../src/runs/agent.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { RunExecutor } from '../../src/runs/run-executor.ts';
import { Runs } from '../../src/runs/runs.ts';
import type { AcceptedRun, ClaimedRun } from '../../src/runs/stored-run.ts';
import { sweepRuns } from '../../workers/sweep-runs.ts';
import { catalogueFiles, planRow, toolFile, toolRow } from '../support/catalogues.ts';
import { type Core, NO_QUEUE, silentLogger, startCore } from '../support/core.ts';
import { keysOf } from '../support/keys-of.ts';
import { runInputs, startRun } from '../support/run-nodes.ts';
import { freshUserId } from '../support/tokens.ts';
import { toolNode } from '../support/tools.ts';
import { until } from '../support/until.ts';

let core: Core;
let runs: Runs;
let claims: RunClaims;
let accepted: AcceptedRun[];

const approved = { ...toolFile.permissions.analytics, approval: true };
const TOOLS = {
  permissions: { basic: toolFile.permissions.basic, analytics: approved },
  tools: [toolRow({ name: 'count', units: 3 }), toolRow({ name: 'guarded', permission: 'analytics' })],
};
const PLANS = { default: 'pro', plans: { pro: planRow() } };
const files = new Catalogues(catalogueFiles({ plans: PLANS, tools: TOOLS }, 'file'));
const agents = new AgentCatalogue([{ name: 'tester', description: 'a', tools: ['count', 'guarded'] }], 'tester');

beforeAll(async () => {
  core = await startCore();
  accepted = [];
  const onAccepted = (run: AcceptedRun) => void accepted.push(run);
  runs = new Runs({ ...core, queue: NO_QUEUE, agents, clock: systemClock, onAccepted }, { timeoutMs: 60_000 });
  claims = new RunClaims({ ...core, agents }, { timeoutMs: 60_000 });
});

interface TestRun {
  readonly userId: string;
  readonly runId: string;
}

async function accept(): Promise<TestRun> {
  const run = { userId: freshUserId(), runId: newId('run') };
  await startRun(runs, { ...run, plan: 'pro', threadId: 'thread_1' });
  return run;
}

async function claim({ userId, runId }: TestRun): Promise<ClaimedRun> {
  const claimed = await claims.claim(userId, runId);
  if (claimed.outcome !== 'claimed') throw new Error(`the run is ${claimed.outcome}`);
  return claimed.run;
}

/** The state of a user in Redis, to which Redis can go back like a replica that lagged. */
class Snapshot {
  readonly #user: string;
  readonly #stored = new Map<string, Buffer>();

  private constructor(user: string) {
    this.#user = user;
  }

  static async of({ userId }: TestRun): Promise<Snapshot> {
    const snapshot = new Snapshot(userId);
    for (const key of await snapshot.#keys()) {
      const stored = await core.redis.dumpBuffer(key);
      if (stored) snapshot.#stored.set(key, stored);
    }
    return snapshot;
  }

  async goBack(): Promise<void> {
    const keys = await this.#keys();
    if (keys.length > 0) await core.redis.unlink(...keys);
    for (const [key, stored] of this.#stored) await core.redis.restore(key, 3_600_000, stored, 'REPLACE');
  }

  async #keys(): Promise<string[]> {
    const { activeRuns, outbox, log } = core.keys.user(this.#user);
    const own = await keysOf(core.redis, `${log.slice(0, -'log'.length)}*`);
    return [...own, activeRuns, outbox];
  }
}

let executions = 0;

function executor(agent: Agent): RunExecutor {
  const count = async () => ({ execution: ++executions });
  const { service: tools } = toolNode(core, { catalogues: files, executors: { count, guarded: count } });
  const { log, metrics, tracing } = core;
  const deps = { log, claims, agents, agent, tools, clock: systemClock, metrics, tracing, logger: silentLogger };
  return new RunExecutor(deps, { timeoutMs: 60_000, inputExpiresMs: 60_000 });
}

/** Two calls with a thought before each, and `lose` between two of these steps. */
function twice(lose: (step: number) => Promise<void>): Agent {
  return async (_task, context) => {
    await lose(0);
    await context.think('first');
    await lose(1);
    await context.call('count', {});
    await lose(2);
    await context.think('second');
    await context.call('count', {});
    await lose(3);
    return { final_response: 'counted', summary: 'counted' };
  };
}

async function events({ userId }: TestRun): Promise<string[]> {
  const entries = await core.redis.xrange(core.keys.user(userId).log, '-', '+');
  return entries.map(([, fields]) => fields[1] ?? '');
}

/** Number of events in the log at each step of `twice`. */
const EVENTS_BEFORE = [1, 2, 4, 7];

const FULL_RUN = [
  'agent_started',
  'agent_thinking',
  'tool_executing',
  'tool_completed',
  'agent_thinking',
  'tool_executing',
  'tool_completed',
  'agent_completed',
];

describe('a run that redis loses while its worker executes it', () => {
  /** What remains: nothing, the accepted run, or the run with the events up to a step. */
  const REMAINING = ['nothing', 'accepted', 'step 0', 'step 1', 'step 2'] as const;
  const cases = REMAINING.flatMap((remains) => [1, 2, 3].map((at) => [remains, at] as const)).filter(
    ([remains, at]) => !remains.startsWith('step') || Number(remains.at(-1)) < at,
  );

  it.each(cases)(
    'ends once with all of its events, and each tool runs once: %s remains at step %i',
    async (kept, at) => {
      executions = 0;
      const run: TestRun = { userId: freshUserId(), runId: newId('run') };
      const snapshots = new Map([['nothing', await Snapshot.of(run)]]);
      await startRun(runs, { ...run, plan: 'pro', threadId: 'thread_1' });
      snapshots.set('accepted', await Snapshot.of(run));
      const lose = async (step: number) => {
        // The agent continues while its events are appended.
        await until(async () => (await events(run)).length === EVENTS_BEFORE[step]);
        if (step === at) await snapshots.get(kept)?.goBack();
        else snapshots.set(`step ${step}`, await Snapshot.of(run));
      };
      expect(await executor(twice(lose)).execute(await claim(run))).toBe('completed');
      expect(await events(run)).toEqual(FULL_RUN);
      expect(executions).toBe(2);
      const { quota, reservations, outbox } = core.keys.user(run.userId);
      expect(await core.redis.hget(quota, 'day')).toMatch(/ 2 6$/);
      expect(await core.redis.zcard(reservations)).toBe(0);
      const records = (await core.redis.xrange(outbox, '-', '+')).filter(([, fields]) =>
        fields[1]?.includes(run.runId),
      );
      expect(records).toHaveLength(2);
      expect(await runs.status(run.userId, run.runId)).toMatchObject({ status: 'completed' });
      expect(await claims.overdue()).toEqual([]);
    },
  );

  it('is left to the worker that has claimed it since, with one end', async () => {
    const run = await accept();
    const before = await Snapshot.of(run);
    let second: Promise<string> | undefined;
    const lose = async (step: number) => {
      if (step !== 2) return;
      await before.goBack();
      second = executor(twice(async () => undefined)).execute(await claim(run));
      await until(async () => (await events(run)).includes('agent_thinking'));
    };
    expect(await executor(twice(lose)).execute(await claim(run))).toBe('lost');
    expect(await second).toBe('completed');
    expect(await events(run)).toEqual(FULL_RUN);
  });

  it('gets no fencing token twice', async () => {
    const run = await accept();
    const before = await Snapshot.of(run);
    const first = await claim(run);
    await before.goBack();
    expect((await claim(run)).fencingToken).not.toBe(first.fencingToken);
  });

  it('stays deleted while the data of its user is erased', async () => {
    const run = await accept();
    const lose = async (step: number) => {
      if (step !== 1) return;
      await core.redis.del(core.keys.user(run.userId).run(run.runId));
      await core.redis.hset(core.keys.user(run.userId).account, 'erasure', 'erased_1');
    };
    expect(await executor(twice(lose)).execute(await claim(run))).toBe('lost');
    expect(await runs.status(run.userId, run.runId)).toMatchObject({ status: 'unknown' });
  });
});

describe('a run that redis loses after its end', () => {
  it('is ended again by its worker after the reconnect, once', async () => {
    executions = 0;
    const run = await accept();
    const before = await Snapshot.of(run);
    const worker = executor(twice(async () => undefined));
    expect(await worker.execute(await claim(run))).toBe('completed');
    await worker.confirmRuns();
    expect(await events(run)).toEqual(FULL_RUN);
    await before.goBack();
    await worker.confirmRuns();
    await worker.confirmRuns();
    expect(await events(run)).toEqual(FULL_RUN);
    expect(executions).toBe(2);
  });
});

describe('a run that redis loses although it has waited for its user', () => {
  const ASKED = ['agent_started', 'tool_executing', 'input_requested'];
  const ENDED = ['tool_completed', 'agent_completed'];
  const guarded: Agent = async (_task, context) => {
    await context.call('guarded', {});
    return { final_response: 'done', summary: 'done' };
  };
  const answer = async ({ userId, runId }: TestRun) => {
    const [request] = (await runs.status(userId, runId)).input_requests ?? [];
    const given = { runId, inputId: request?.input_id ?? '', answer: { action: 'accept' as const } };
    await runInputs(core).answer(userId, given);
  };

  const STATES = ['nothing', 'accepted', 'waiting', 'answered'] as const;
  const cases = STATES.flatMap((state) => [[state, 'first'] as const, [state, 'second'] as const]);

  // Several times, because fencing tokens are random.
  it.each(cases)(
    'is ended again by its second worker, once: %s remains, the %s worker is back first',
    async (...of) => {
      const [state, order] = of;
      for (let time = 0; time < 4; time++) {
        executions = 0;
        const run: TestRun = { userId: freshUserId(), runId: newId('run') };
        const states = new Map([['nothing', await Snapshot.of(run)]]);
        await startRun(runs, { ...run, plan: 'pro', threadId: 'thread_1' });
        states.set('accepted', await Snapshot.of(run));
        const workers = [executor(guarded), executor(guarded)] as const;
        expect(await workers[0].execute(await claim(run))).toBe('waiting');
        states.set('waiting', await Snapshot.of(run));
        await answer(run);
        states.set('answered', await Snapshot.of(run));
        expect(await workers[1].execute(await claim(run))).toBe('completed');
        await states.get(state)?.goBack();
        for (const worker of order === 'first' ? workers : workers.toReversed()) await worker.confirmRuns();
        // The answer is restored with the run, but not its event. If the second worker is first, its end is final.
        const received = (await events(run)).filter((type) => type !== 'input_received');
        const isAsked = state === 'waiting' || state === 'answered' || order === 'first';
        expect(received).toEqual(isAsked ? [...ASKED, ...ENDED] : ENDED);
        expect(executions).toBe(1);
        expect(await claims.overdue()).toEqual([]);
      }
    },
  );

  it.each(['nothing', 'accepted', 'waiting'] as const)(
    'waits again, and continues after the answer: %s remains',
    async (state) => {
      const run: TestRun = { userId: freshUserId(), runId: newId('run') };
      const states = new Map([['nothing', await Snapshot.of(run)]]);
      await startRun(runs, { ...run, plan: 'pro', threadId: 'thread_1' });
      states.set('accepted', await Snapshot.of(run));
      const worker = executor(guarded);
      expect(await worker.execute(await claim(run))).toBe('waiting');
      states.set('waiting', await Snapshot.of(run));
      await states.get(state)?.goBack();
      await worker.confirmRuns();
      expect(await runs.status(run.userId, run.runId)).toMatchObject({ status: 'waiting' });
      await answer(run);
      expect(await worker.execute(await claim(run))).toBe('completed');
      expect(await events(run)).toEqual([...ASKED, 'input_received', ...ENDED]);
    },
  );

  it('stays queued after its answer while the worker that suspended it reconnects', async () => {
    const run = await accept();
    const worker = executor(guarded);
    expect(await worker.execute(await claim(run))).toBe('waiting');
    await answer(run);
    await worker.confirmRuns();
    expect(await runs.status(run.userId, run.runId)).toMatchObject({ status: 'queued' });
  });
});

describe('a run that redis loses before a worker claims it', () => {
  const sweep = () =>
    sweepRuns({ claims, inputs: runInputs(core), log: core.log, clock: systemClock, logger: silentLogger });

  it('is stored again by the gateway that accepted it, and ended by the sweep', async () => {
    const run: TestRun = { userId: freshUserId(), runId: newId('run') };
    const before = await Snapshot.of(run);
    await startRun(runs, { ...run, plan: 'pro', threadId: 'thread_1' });
    await before.goBack();
    const [kept] = accepted.filter(({ runId }) => runId === run.runId);
    if (!kept) throw new Error('the run was not accepted');
    await claims.keep(kept, 70_000);
    await claims.keep(kept, 70_000);
    expect(await runs.status(run.userId, run.runId)).toMatchObject({ status: 'queued', threadId: 'thread_1' });
    expect(await sweep()).toBe(1);
    expect(await events(run)).toEqual(['agent_started', 'agent_failed']);
    await claims.keep(kept, 70_000);
    expect(await sweep()).toBe(0);
    expect(await events(run)).toEqual(['agent_started', 'agent_failed']);
  });

  it('is checked after a reconnect and at its deadline, unless the node has seen its end', async () => {
    const checked: string[] = [];
    const keep = async ({ runId }: AcceptedRun) => void checked.push(runId);
    const node = new AcceptedRuns(
      { redis: core.redis, claims: { keep }, clock: systemClock, logger: silentLogger },
      { endMs: 1 },
    );
    const [first] = accepted;
    if (!first) throw new Error('no run was accepted');
    node.add({ ...first, runId: 'run_ended' });
    node.add({ ...first, runId: 'run_lost' });
    const json = '{"seq":1,"run_id":"run_ended","final_response":"\\"run_id\\":\\"run_lost\\""}';
    node.onEntry({ type: 'agent_completed', seq: 1, epoch: 'e', timestamp: '', json });
    node.start();
    core.redis.emit('ready');
    await until(() => checked.length === 1);
    await until(() => node.count === 0);
    node.stop();
    expect(checked).toEqual(['run_lost', 'run_lost']);
  });
});
