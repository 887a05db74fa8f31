import { beforeAll, describe, expect, it } from '@jest/globals';
import { AgentCatalogue } from '../../src/catalogue/agent-catalogue.ts';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { RedisUnavailable } from '../../src/redis/errors.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import type { Agent } from '../../src/runs/agent.ts';
import { RunClaims } from '../../src/runs/run-claims.ts';
import { RunExecutor } from '../../src/runs/run-executor.ts';
import { Runs } from '../../src/runs/runs.ts';
import type { ClaimedRun } from '../../src/runs/stored-run.ts';
import { OUTAGE_RETRY_MS } from '../../src/tools/outcome.ts';
import type { ToolExecutor } from '../../src/tools/tool.ts';
import { abandonRun, sweepRuns } from '../../workers/sweep-runs.ts';
import { catalogues, toolRow } from '../support/catalogues.ts';
import { type Core, NO_QUEUE, silentLogger, startCore, thinking } from '../support/core.ts';
import { runInputs } from '../support/run-nodes.ts';
import { freshUserId } from '../support/tokens.ts';
import { toolNode } from '../support/tools.ts';
import { until } from '../support/until.ts';

let core: Core;
let runs: Runs;
let claims: RunClaims;

const files = catalogues({ tools: [toolRow({ name: 'count', units: 3 })] }, 'file');
const agents = new AgentCatalogue([{ name: 'tester', description: 'a', tools: ['count'] }], 'tester');

beforeAll(async () => {
  core = await startCore();
  runs = new Runs({ ...core, queue: NO_QUEUE, agents, clock: systemClock }, { timeoutMs: 2_000 });
  claims = new RunClaims({ ...core, agents }, { timeoutMs: 2_000 });
});

async function accept(
  by = runs,
  { userId, runId } = { userId: freshUserId(), runId: newId('run') },
): Promise<{ userId: string; runId: string }> {
  const identity = { userId, plan: 'pro', permissions: [], roles: [], featureFlags: {} } as unknown as Identity;
  const request = { connectionId: 'c', requestId: newId('req'), threadId: 'thread_1', agent: undefined };
  const run = { ...request, identity, runId, message: 'count twice', transport: 'websocket', degraded: false };
  await by.start(run, { allowed: Promise.resolve(), messages: 30 });
  return { userId, runId };
}

async function claim({ userId, runId }: { userId: string; runId: string }): Promise<ClaimedRun> {
  const claimed = await claims.claim(userId, runId);
  if (claimed.outcome !== 'claimed') throw new Error(`the run is ${claimed.outcome}`);
  return claimed.run;
}

function executor(
  agent: Agent,
  count: ToolExecutor,
  options: { timeoutMs?: number; clock?: Clock; log?: Core['log'] } = {},
): RunExecutor {
  const clock = options.clock ?? systemClock;
  const { service: tools } = toolNode(core, { catalogues: files, executors: { count }, clock });
  const { metrics, tracing } = core;
  const deps = {
    log: options.log ?? core.log,
    claims,
    agents,
    agent,
    tools,
    clock,
    metrics,
    tracing,
    logger: silentLogger,
  };
  return new RunExecutor(deps, { timeoutMs: options.timeoutMs ?? 10_000, inputExpiresMs: 60_000 });
}

/** Two calls with a thought in between: six events with start and end. */
const twice: Agent = async (_task, context) => {
  await context.think('first');
  const first = await context.call('count', {});
  await context.think('second');
  const second = await context.call('count', {});
  return { final_response: JSON.stringify([first.result, second.result]), summary: 'counted' };
};

interface Seen {
  readonly type: string;
  readonly tool_call_id?: string;
  readonly usage_record_id?: string;
  readonly error?: object;
}

async function events(userId: string): Promise<Seen[]> {
  const { epoch } = await core.eventLog.read(userId, { epoch: undefined, after: 0, delivered: undefined }, 1);
  const { entries } = await core.eventLog.read(userId, { epoch, after: 0, delivered: undefined }, 100);
  return entries.map(({ json, type }) => ({ ...(JSON.parse(json) as object), type }));
}

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

describe('a second job of a run', () => {
  it('does not interrupt the worker of the first one, and a takeover does', async () => {
    const { userId, runId } = await accept();
    const first = await claims.claim(userId, runId, 'job-1');
    expect(first.outcome).toBe('claimed');
    expect((await claims.claim(userId, runId, 'job-2')).outcome).toBe('finished');
    // The reply to a claim can be lost, and the claim is then sent again.
    expect((await claims.claim(userId, runId, 'job-1')).outcome).toBe('claimed');
    expect((await claims.claim(userId, runId)).outcome).toBe('claimed');
    expect((await claims.claim(userId, runId, 'job-1')).outcome).toBe('finished');
  });
});

describe('a run whose worker died', () => {
  // Events that the agent emits in one turn of the event loop are one append, so the eight events are four.
  it.each([0, 1, 2, 3])(
    'continues without a gap or a repetition when its worker died after append %i',
    async (died) => {
      const accepted = await accept();
      let executions = 0;
      const count: ToolExecutor = async () => ({ execution: ++executions });
      // The first worker stops in the middle of an append, like a killed process.
      const first = await claim(accepted);
      let written = 0;
      const dead = new Promise<never>(() => undefined);
      const dyingLog = { ...core, log: Object.create(core.log) as typeof core.log };
      dyingLog.log.append = (append) => (written++ >= died ? dead : core.log.append(append));
      const { service: tools } = toolNode(core, { catalogues: files, executors: { count } });
      const dying = new RunExecutor(
        {
          log: dyingLog.log,
          claims,
          agents,
          agent: twice,
          tools,
          clock: systemClock,
          metrics: core.metrics,
          tracing: core.tracing,
          logger: silentLogger,
        },
        { timeoutMs: 60_000, inputExpiresMs: 60_000 },
      );
      void dying.execute(first);
      await until(() => written > died);

      expect(await executor(twice, count).execute(await claim(accepted))).toBe('completed');
      const seen = await events(accepted.userId);
      expect(seen.map(({ type }) => type)).toEqual(FULL_RUN);
      const completed = seen.filter(({ type }) => type === 'tool_completed');
      expect(new Set(completed.map(({ usage_record_id }) => usage_record_id)).size).toBe(2);
      // A call with an outcome in the log is not repeated; only an interrupted one is.
      expect(executions).toBeLessThanOrEqual(3);
      const billed = await core.redis.lrange(core.keys.user(accepted.userId).recentUsage, 0, -1);
      expect(billed.map((json) => JSON.parse(json).id).toSorted()).toEqual(
        completed.map(({ usage_record_id }) => usage_record_id).toSorted(),
      );
      // Whichever worker made a call first: it had one reservation, which was released, and counted once.
      const { quota, reservations } = core.keys.user(accepted.userId);
      expect(await core.redis.zcard(reservations)).toBe(0);
      expect(await core.redis.hget(quota, 'day')).toMatch(/ 2 6$/);
    },
  );

  it('is left alone by a worker that comes back after it was taken over', async () => {
    const accepted = await accept();
    const late = await claim(accepted);
    const count: ToolExecutor = async () => ({});
    expect(await executor(twice, count).execute(await claim(accepted))).toBe('completed');
    expect(await executor(twice, count).execute(late)).toBe('lost');
    expect((await events(accepted.userId)).map(({ type }) => type)).toEqual(FULL_RUN);
  });

  it('without a takeover is ended by the sweep, with a start and one end', async () => {
    const sweep = { claims, inputs: runInputs(core), log: core.log, clock: systemClock, logger: silentLogger };
    await accept();
    expect(await sweepRuns(sweep)).toBe(0);
    const accepted = await accept(
      new Runs({ ...core, queue: NO_QUEUE, agents, clock: systemClock }, { timeoutMs: -60_000 }),
    );
    expect(await sweepRuns(sweep)).toBe(1);
    const seen = await events(accepted.userId);
    expect(seen.map(({ type }) => type)).toEqual(['agent_started', 'agent_failed']);
    expect(seen[1]?.error).toMatchObject({ code: 'RUN_TIMEOUT' });
    expect(await abandonRun({ user_id: accepted.userId, run_id: accepted.runId }, 'RUN_TIMEOUT', sweep)).toBe(false);
    expect(await claims.overdue()).toEqual([]);
  });

  it('that cannot be ended, since its user’s data is damaged, keeps no other from its end', async () => {
    const sweep = { claims, inputs: runInputs(core), log: core.log, clock: systemClock, logger: silentLogger };
    const late = new Runs({ ...core, queue: NO_QUEUE, agents, clock: systemClock }, { timeoutMs: -60_000 });
    const [first, second] = [await accept(late), await accept(late)];
    const [damaged, sound] = partitionOf(first.userId) < partitionOf(second.userId) ? [first, second] : [second, first];
    await core.log.append({ userId: damaged.userId, events: [thinking('before')] });
    await core.redis.del(core.keys.user(damaged.userId).logState);
    expect(await sweepRuns(sweep)).toBe(1);
    expect((await events(sound.userId)).map(({ type }) => type)).toEqual(['agent_started', 'agent_failed']);
    await core.redis.del(core.keys.user(damaged.userId).log);
    expect(await sweepRuns(sweep)).toBe(1);
  });
});

describe('a request id that has been forgotten', () => {
  it('starts another run the next day, whose records are not those of the first', async () => {
    const accepted = await accept();
    const keys = core.keys.user(accepted.userId);
    const count: ToolExecutor = async () => ({});
    await executor(twice, count).execute(await claim(accepted));
    // Expiry does this a day later.
    await core.redis.del(keys.run(accepted.runId));
    const again = await accept(runs, accepted);
    expect(again).toEqual(accepted);
    await core.redis.hincrby(keys.run(accepted.runId), 'accepted_at', 24 * 3_600_000);
    const { run } = (await claims.claim(again.userId, again.runId)) as { run: ClaimedRun };
    await executor(twice, count).execute({ ...run, waitedMs: 0 });
    const ids = (await core.redis.lrange(keys.recentUsage, 0, -1)).map((json) => JSON.parse(json).id);
    expect(ids).toHaveLength(4);
    expect(new Set(ids).size).toBe(4);
  });
});

describe('a run that is stopped', () => {
  const patient: ToolExecutor = (_args, { signal }) =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

  it('ends with agent_cancelled after the call it was in has been recorded', async () => {
    const accepted = await accept();
    const running = executor(twice, patient);
    const end = running.execute(await claim(accepted));
    await until(async () => (await events(accepted.userId)).some(({ type }) => type === 'tool_executing'));
    running.cancel(accepted.runId);
    expect(await end).toBe('cancelled');
    const seen = await events(accepted.userId);
    expect(seen.map(({ type }) => type)).toEqual([...FULL_RUN.slice(0, 4), 'agent_cancelled']);
    const [record] = await core.redis.lrange(core.keys.user(accepted.userId).recentUsage, 0, -1);
    expect(JSON.parse(record ?? '{}')).toMatchObject({ status: 'cancelled', units: 0 });
  });

  it('ends an open call of an agent that does not stop, in the append of its terminal event', async () => {
    const accepted = await accept();
    const log = Object.create(core.log) as typeof core.log;
    const appends: string[][] = [];
    log.append = (append) => {
      appends.push(append.events.map(({ type }) => type));
      return core.log.append(append);
    };
    const remote: Agent = async (_task, context) => {
      const call = { tool_name: 'own', tool_call_id: 'call_own', arguments: {}, status: 'executing', remote: true };
      await context.remote.event('tool_executing', call);
      return new Promise(() => undefined);
    };
    const running = executor(remote, patient, { log });
    const end = running.execute(await claim(accepted));
    await until(async () => (await events(accepted.userId)).some(({ type }) => type === 'tool_executing'));
    running.cancel(accepted.runId);
    expect(await end).toBe('cancelled');
    const seen = await events(accepted.userId);
    const ended = { success: false, error: { code: 'TOOL_FAILED' }, usage_record_id: null, status: 'completed' };
    expect(seen.slice(1)).toMatchObject([
      { type: 'tool_executing', tool_call_id: 'call_own' },
      { type: 'tool_completed', tool_call_id: 'call_own', tool_name: 'own', remote: true, ...ended },
      { type: 'agent_cancelled' },
    ]);
    expect(appends.at(-1)).toEqual(['tool_completed', 'agent_cancelled']);
  });

  it.each(['the sweep', 'a worker that takes over'])('ends the open call of a lost worker once, by %s', async (by) => {
    const accepted = await accept();
    const resumed = Promise.withResolvers<object>();
    let executions = 0;
    const second: ToolExecutor = async () => (++executions === 1 ? {} : resumed.promise);
    const lost = executor(twice, second).execute(await claim(accepted));
    await until(() => executions === 2);
    if (by === 'the sweep') {
      const sweep = { claims, inputs: runInputs(core), log: core.log, clock: systemClock, logger: silentLogger };
      await abandonRun({ user_id: accepted.userId, run_id: accepted.runId }, 'RUN_TIMEOUT', sweep);
    } else {
      // Its agent makes no call again before the run ends.
      const broken: Agent = () => Promise.reject(new Error('broken'));
      await executor(broken, second).execute(await claim(accepted));
    }
    resumed.resolve({});
    expect(await lost).toBe('lost');
    const seen = await events(accepted.userId);
    expect(seen.map(({ type }) => type)).toEqual([...FULL_RUN.slice(0, 7), 'agent_failed']);
    expect(seen[6]).toMatchObject({ tool_call_id: seen[5]?.tool_call_id, success: false, usage_record_id: null });
    expect(await core.redis.llen(core.keys.user(accepted.userId).recentUsage)).toBe(1);
  });

  it('ends with agent_failed RUN_TIMEOUT when its time is over, also when its agent does not stop', async () => {
    const accepted = await accept();
    const stubborn: Agent = () => new Promise(() => undefined);
    expect(await executor(stubborn, patient, { timeoutMs: 50 }).execute(await claim(accepted))).toBe('failed');
    const seen = await events(accepted.userId);
    expect(seen.map(({ type }) => type)).toEqual(['agent_started', 'agent_failed']);
    expect(seen[1]?.error).toMatchObject({ code: 'RUN_TIMEOUT' });
  });

  it.each([true, false])(
    'has all outcomes and its end in the log after an outage beyond all timeouts, first append arrived: %s',
    async (arrived) => {
      const accepted = await accept();
      // The clock is moved beyond all timeouts, instead of waiting for them.
      let ahead = 0;
      const clock: Clock = { ...systemClock, now: () => systemClock.now() + ahead };
      const log = Object.create(core.log) as typeof core.log;
      log.append = async (append) => {
        const isFirst = append.events.some(({ type }) => type === 'tool_completed') && ahead === 0;
        if (!isFirst) return core.log.append(append);
        ahead = OUTAGE_RETRY_MS;
        if (arrived) await core.log.append(append);
        throw new RedisUnavailable();
      };
      const both: Agent = async (_task, context) => {
        const calls = await Promise.allSettled([context.call('count', {}), context.call('count', {})]);
        for (const call of calls) if (call.status === 'rejected') throw call.reason;
        return { final_response: 'both', summary: 'both' };
      };
      const count: ToolExecutor = async () => ({});
      const end = await executor(both, count, { clock, log }).execute(await claim(accepted));
      const seen = await events(accepted.userId);
      // The agent may have answered before the first append failed.
      expect(['completed', 'failed']).toContain(end);
      expect(seen.map(({ type }) => type).filter((type) => type !== 'tool_executing')).toEqual([
        'agent_started',
        'tool_completed',
        'tool_completed',
        `agent_${end}`,
      ]);
      expect(await core.redis.llen(core.keys.user(accepted.userId).recentUsage)).toBe(2);
    },
  );

  it('ends with agent_failed when its agent throws, and says nothing of why', async () => {
    const accepted = await accept();
    const broken: Agent = async () => {
      throw new Error('secret detail');
    };
    expect(await executor(broken, patient).execute(await claim(accepted))).toBe('failed');
    const seen = await events(accepted.userId);
    expect(seen.map(({ type }) => type)).toEqual(['agent_started', 'agent_failed']);
    expect(JSON.stringify(seen)).not.toContain('secret');
  });
});
