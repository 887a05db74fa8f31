import type { KillableRedis } from '../killable-redis.ts';
import type { StackProcess, StackProcesses } from '../stack-processes.ts';
import { until } from '../until.ts';
import type { Random } from './random.ts';

export interface KillPlan {
  /** Kills of gateways, and of workers. Redis is killed half as often, because it has more to load at each start. */
  readonly kills: number;
  /** The amount of work over which the kills are spread, in the unit of `done`. */
  readonly total: number;
  readonly done: () => number;
  readonly signal: AbortSignal;
}

export interface Kills {
  gateways: number;
  workers: number;
  redis: number;
}

/** Start timeout on a busy machine, with Redis unavailable for a part of the time. */
const START_MS = 60_000;
const PROGRESS_MS = 600_000;

/**
 * Kills gateways, workers and Redis with SIGKILL at random points of the work, independently of each other, and
 * restarts each. Every process of a kind is killed before any is killed a second time. Resolves when the last one is up
 * again.
 */
export async function killEverything(
  stack: StackProcesses,
  redis: KillableRedis,
  random: Random,
  plan: KillPlan,
): Promise<Kills> {
  const kills: Kills = { gateways: 0, workers: 0, redis: 0 };
  const victims = (processes: readonly StackProcess[], kind: 'gateways' | 'workers') => {
    const turns = Array.from({ length: Math.ceil(plan.kills / processes.length) }, () => random.shuffled(processes));
    return turns
      .flat()
      .slice(0, plan.kills)
      .map((victim) => async () => {
        kills[kind] += 1;
        await victim.kill('SIGKILL');
        // A process cannot start while Redis is unavailable.
        await until(() => victim.start().then(() => true), { timeoutMs: START_MS, label: `${victim.name} again` });
      });
  };
  const ofRedis = Array.from({ length: Math.ceil(plan.kills / 2) }, () => async () => {
    kills.redis += 1;
    await redis.kill();
  });
  const series = [victims(stack.gateways, 'gateways'), victims(stack.workers, 'workers'), ofRedis];
  await Promise.all(series.map((one) => oneAfterTheOther(one, random, plan)));
  return kills;
}

/** Runs each action in its own section of the work, at a random point of it. */
async function oneAfterTheOther(series: readonly (() => Promise<void>)[], random: Random, plan: KillPlan) {
  for (const [at, kill] of series.entries()) {
    const index = (0.95 * plan.total * (at + random.next())) / series.length;
    const reached = () => plan.signal.aborted || plan.done() >= index;
    await until(reached, { timeoutMs: PROGRESS_MS, everyMs: 1, label: 'the work to go on' });
    if (plan.signal.aborted) return;
    await kill();
  }
}
