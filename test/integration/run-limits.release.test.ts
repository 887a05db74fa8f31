import { beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { systemClock } from '../../src/lib/clock.ts';
import { newId } from '../../src/lib/ids.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { RunOwnershipLost } from '../../src/runs/run-end.ts';
import type { Runs } from '../../src/runs/runs.ts';
import { abandonRun, sweepRuns } from '../../workers/sweep-runs.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import {
  claimRun,
  completeRun,
  isRefused,
  runClaims,
  runInputs,
  runNodes,
  startRun,
  tryRun,
} from '../support/run-nodes.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const IN_FLIGHT = 3;
const PER_HOUR = 25;
const plan = 'narrow';
const files = catalogues(
  {
    tools: [toolRow({ name: 't' })],
    plans: {
      narrow: planRow({ runs_in_flight: IN_FLIGHT }),
      both: planRow({ rank: 1, runs_in_flight: IN_FLIGHT, runs_per_hour: PER_HOUR }),
    },
  },
  'file',
);

let core: Core;
let nodes: Runs[];

beforeAll(async () => {
  core = await startCore();
  nodes = await runNodes(core, files.plans);
});

const node = (at = 0): Runs => nodes[at % nodes.length] as Runs;
const inFlight = (userId: string) => core.redis.zcard(core.keys.user(userId).runsInFlight);
const sweepDeps = (of = core) => ({
  claims: runClaims(of),
  inputs: runInputs(of),
  log: of.log,
  clock: systemClock,
  logger: silentLogger,
});

/** A user with as many runs in flight as the plan allows. */
async function busyUser(): Promise<{ userId: string; first: string; others: readonly string[] }> {
  const userId = freshUserId();
  const runs = [];
  for (let at = 0; at < IN_FLIGHT; at++) runs.push(await startRun(node(at), { userId, plan, threadId: 'thread_1' }));
  const [first = '', ...others] = runs.map(({ run_id }) => run_id);
  return { userId, first, others };
}

/** Expects that exactly one further run can start. */
async function expectOneSlot(userId: string): Promise<void> {
  const tries = Array.from({ length: 12 }, (_, at) => tryRun(node(at), { userId, plan, threadId: 'thread_1' }));
  expect((await Promise.all(tries)).filter((one) => !isRefused(one))).toHaveLength(1);
}

describe('the end of a run makes room for one other', () => {
  it.each(['completed', 'failed', 'cancelled'] as const)(
    'when it has %s, and a late repetition makes none',
    async (end) => {
      const { userId, first } = await busyUser();
      const [late, log] = [await claimRun(core, userId, first), await claimRun(core, userId, first)];
      await log.started();
      if (end === 'completed') await log.completed({ final_response: 'done', summary: 'done' });
      else if (end === 'failed') await log.failed(new TollgateError('RUN_TIMEOUT'));
      else await log.cancelled();
      expect(await inFlight(userId)).toBe(IN_FLIGHT - 1);
      await expectOneSlot(userId);
      // The worker that had the run before the takeover continues.
      await expect(late.failed(new TollgateError('INTERNAL_ERROR'))).rejects.toThrow(RunOwnershipLost);
      await runClaims(core).forget(userId, first);
      expect(await inFlight(userId)).toBe(IN_FLIGHT);
    },
  );

  it('when it was asked to be cancelled before a worker had it', async () => {
    const { userId, first } = await busyUser();
    await node().cancel(userId, first, { allowed: Promise.resolve(), messages: 30 });
    expect(await tryRun(node(), { userId, plan })).toMatchObject({ code: 'RATE_LIMITED' });
    await (await claimRun(core, userId, first)).cancelled();
    await expectOneSlot(userId);
  });

  it('when its job failed for good, once, also when two workers say so', async () => {
    const { userId, first } = await busyUser();
    const job = { user_id: userId, run_id: first };
    const ended = await Promise.all([0, 1].map(() => abandonRun(job, 'INTERNAL_ERROR', sweepDeps())));
    expect(ended).toContain(true);
    expect(await inFlight(userId)).toBe(IN_FLIGHT - 1);
    await expectOneSlot(userId);
  });

  it('when its worker has died, by the sweep, and by its deadline where no sweep comes', async () => {
    const short = await startCore();
    // Overdue 200 ms after they are accepted: see `SWEEP_MARGIN_MS`.
    const [runs] = await runNodes(short, files.plans, { nodes: 1, timeoutMs: -4_800 });
    if (!runs) throw new Error('one node');
    const [swept, alone] = [freshUserId(), freshUserId()];
    const fill = async (userId: string) => {
      const all = Array.from({ length: IN_FLIGHT + 1 }, () => tryRun(runs, { userId, plan, threadId: 'thread_1' }));
      expect((await Promise.all(all)).filter((one) => !isRefused(one))).toHaveLength(IN_FLIGHT);
    };
    await fill(swept);
    // One of these has a later deadline: the key remains, and the others no longer count.
    const [long] = await runNodes(short, files.plans, { nodes: 1 });
    const start = (by = long) => by && tryRun(by, { userId: alone, plan, threadId: 'thread_1' });
    const started = [
      await start(long),
      ...(await Promise.all(Array.from({ length: IN_FLIGHT - 1 }, () => start(runs)))),
    ];
    expect(started.filter((one) => one && !isRefused(one))).toHaveLength(IN_FLIGHT);
    await until(async () => {
      const one = await start(long);
      return one !== undefined && !isRefused(one);
    });
    let ended = 0;
    await until(async () => {
      ended += await sweepRuns(sweepDeps(short));
      return ended >= 2 * IN_FLIGHT - 1;
    });
    expect(await short.redis.zcard(short.keys.user(swept).runsInFlight)).toBe(0);
    await fill(swept);
  });

  it('when nothing is known of it any more', async () => {
    const { userId, first } = await busyUser();
    await core.redis.del(core.keys.user(userId).run(first));
    await abandonRun({ user_id: userId, run_id: first }, 'RUN_TIMEOUT', sweepDeps());
    await expectOneSlot(userId);
  });
});

/** `at`: the node that starts, the run that is repeated, or the run in flight that ends, modulo their number. */
interface Step {
  readonly kind: 'start' | 'repeat' | 'complete' | 'abandon' | 'takeover';
  readonly at: number;
}
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom('start' as const, 'repeat' as const), at: fc.nat(9) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('complete' as const, 'abandon' as const, 'takeover' as const),
      at: fc.nat(9),
    }),
  },
);

/** A short model of the limits. */
class Model {
  readonly started: { readonly requestId: string; readonly runId: string }[] = [];
  readonly live: string[] = [];

  get refusal(): string | undefined {
    if (this.started.length >= PER_HOUR) return 'QUOTA_EXCEEDED';
    return this.live.length >= IN_FLIGHT ? 'RATE_LIMITED' : undefined;
  }
}

async function carryOut(step: Step, userId: string, model: Model): Promise<void> {
  if (step.kind === 'start') {
    const ids = { requestId: newId('req'), runId: newId('run') };
    const expected = model.refusal;
    const answer = await tryRun(node(step.at), { userId, plan: 'both', threadId: 'thread_1', ...ids });
    expect(isRefused(answer) ? answer.code : undefined).toBe(expected);
    if (expected) return;
    model.started.push(ids);
    model.live.push(ids.runId);
  } else if (step.kind === 'repeat') {
    const ids = model.started[step.at % Math.max(1, model.started.length)];
    if (!ids) return;
    const answer = await startRun(node(step.at), { userId, plan: 'both', threadId: 'thread_1', ...ids });
    expect(answer).toMatchObject({ run_id: ids.runId, isRepeated: true });
  } else {
    const at = step.at % Math.max(1, model.live.length);
    const runId = model.live[at];
    if (!runId) return;
    if (step.kind === 'takeover') return void (await claimRun(core, userId, runId));
    model.live.splice(at, 1);
    if (step.kind === 'complete') await completeRun(core, userId, runId);
    else await abandonRun({ user_id: userId, run_id: runId }, 'RUN_TIMEOUT', sweepDeps());
  }
}

it('agrees with a model of a few lines, whatever is started, repeated, taken over and ended', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80 }), async (steps) => {
      const [userId, model] = [freshUserId(), new Model()];
      for (const one of steps) await carryOut(one, userId, model);
      expect((await core.redis.zrangebyscore(core.keys.user(userId).runsInFlight, '-inf', '+inf')).toSorted()).toEqual(
        model.live.toSorted(),
      );
    }),
    { numRuns: Number(process.env.QUOTA_RUNS ?? 60) / 2 },
  );
});
