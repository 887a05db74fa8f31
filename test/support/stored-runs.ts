import { expect } from '@jest/globals';
import { activeRunMember } from '../../src/events/user-log-writer.ts';
import { newId } from '../../src/lib/ids.ts';
import type { RunClaims } from '../../src/runs/run-claims.ts';
import type { Runs } from '../../src/runs/runs.ts';
import type { ClaimedRun } from '../../src/runs/stored-run.ts';
import type { Core } from './core.ts';
import { startRun } from './run-nodes.ts';
import { freshUserId } from './tokens.ts';
import { until } from './until.ts';

/** A run with its keys in Redis. */
export class StoredRun {
  readonly userId: string;
  readonly runId = newId('run');
  readonly requestId = newId('req');
  readonly threadId: string;
  readonly #core: Core;

  constructor(core: Core, { userId = freshUserId(), threadId = 'thread_1' } = {}) {
    this.#core = core;
    this.userId = userId;
    this.threadId = threadId;
  }

  get keys() {
    return this.#core.keys.user(this.userId);
  }

  get key(): string {
    return this.keys.run(this.runId);
  }

  get member(): string {
    return activeRunMember(this.userId, this.runId);
  }

  async start(node: Runs): Promise<this> {
    await startRun(node, { ...this, plan: 'pro' });
    return this;
  }

  async claim(claims: RunClaims): Promise<ClaimedRun> {
    const claimed = await claims.claim(this.userId, this.runId);
    if (claimed.outcome !== 'claimed') throw new Error(claimed.outcome);
    return claimed.run;
  }

  set(fields: Readonly<Record<string, string | number>>): Promise<unknown> {
    return this.#core.redis.hset(this.key, { ...fields });
  }

  stored(): Promise<Record<string, string>> {
    return this.#core.redis.hgetall(this.key);
  }

  /** Expects the deadline in both sets. */
  async expectDeadline(from: number): Promise<void> {
    const { activeRuns, runsInFlight } = this.keys;
    expectAbout(await this.#core.redis.zscore(activeRuns, this.member), from);
    expect(await this.#core.redis.zscore(runsInFlight, this.runId)).toBe(
      await this.#core.redis.zscore(activeRuns, this.member),
    );
  }
}

/** Redis and this process share one clock. */
export function expectAbout(at: number | string | null | undefined, from: number): void {
  expect(Number(at)).toBeGreaterThanOrEqual(from - 1);
  expect(Number(at)).toBeLessThan(from + 10_000);
}

export async function expectKept({ redis }: Core, key: string, ms: number): Promise<void> {
  const left = await redis.pttl(key);
  expect(left).toBeLessThanOrEqual(ms);
  expect(left).toBeGreaterThan(ms - 10_000);
}

/** Waits until the current period of that length does not end within two seconds. */
export function notAtTheEndOf(periodMs: number): Promise<boolean> {
  return until(() => Date.now() % periodMs < periodMs - 2_000);
}
