import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { isTerminalEvent, type LogEntry } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import type { RunClaims } from './run-claims.ts';
import type { AcceptedRun } from './stored-run.ts';

/** Characters of the runs that are kept, messages and callers included. The oldest are dropped first. */
const KEPT_CHARACTERS = 16 * 1024 * 1024;
/**
 * Maximum age at which a run is stored again. The erasure of a user deletes nothing earlier than 90 s after the user's
 * last run, so a missing run of this age was lost.
 */
const MAX_AGE_MS = 80_000;
const CHECK_EVERY_MS = 1_000;
const AT_ONCE = 100;

export interface AcceptedRunsDeps {
  readonly redis: Pick<Redis, 'on' | 'off'>;
  readonly claims: Pick<RunClaims, 'keep'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Kept {
  readonly run: AcceptedRun;
  readonly at: number;
  readonly size: number;
}

/**
 * The runs that this node accepted and whose end it has not seen. Redis may lose an acknowledged run before a worker
 * claims it (a failover to a lagging replica, a restart from an older file). The node then stores it again, and the
 * sweep or the worker that executes it ends it. It checks each run after a reconnect to Redis, and at the latest when
 * the run must have ended: the failover of another shard of a Redis Cluster interrupts no connection of this node.
 */
export class AcceptedRuns {
  readonly #deps: AcceptedRunsDeps;
  readonly #checkAfterMs: number;
  readonly #runs = new Map<string, Kept>();
  #size = 0;
  #isChecking = false;
  #stop: () => void = () => undefined;

  /** @param options.endMs milliseconds from acceptance after which a run must have ended */
  constructor(deps: AcceptedRunsDeps, { endMs }: { readonly endMs: number }) {
    this.#deps = deps;
    this.#checkAfterMs = Math.min(endMs, MAX_AGE_MS - 2 * CHECK_EVERY_MS);
  }

  start(): void {
    const { redis, clock } = this.#deps;
    const onReady = () => void this.#check([...this.#runs.values()]);
    redis.on('ready', onReady);
    const cancel = clock.every(CHECK_EVERY_MS, () => void this.#checkDue());
    this.#stop = () => {
      cancel();
      redis.off('ready', onReady);
    };
  }

  stop(): void {
    this.#stop();
  }

  get count(): number {
    return this.#runs.size;
  }

  add(run: AcceptedRun): void {
    this.#remove(run.runId);
    const size = run.message.length + run.clientTools.length + run.caller.length + run.runId.length;
    this.#runs.set(run.runId, { run, at: this.#deps.clock.now(), size });
    this.#size += size;
    for (const runId of this.#runs.keys()) {
      if (this.#size <= KEPT_CHARACTERS) return;
      this.#remove(runId);
    }
  }

  /** Drops the run that an event of this node's users ends. */
  onEntry({ type, json }: LogEntry): void {
    if (this.#runs.size === 0 || !isTerminalEvent(type)) return;
    // Within a JSON string the quotes are escaped, so a text of an agent cannot match.
    const runId = /"run_id":"([^"]+)"/.exec(json)?.[1];
    if (runId !== undefined) this.#remove(runId);
  }

  async #checkDue(): Promise<void> {
    const now = this.#deps.clock.now();
    const due: Kept[] = [];
    // In the order of acceptance, so the due runs come first.
    for (const kept of this.#runs.values()) {
      if (now - kept.at < this.#checkAfterMs) break;
      due.push(kept);
    }
    if (!(await this.#check(due))) return;
    for (const { run } of due) this.#remove(run.runId);
  }

  /** Never rejects. @returns false when some are unchecked */
  async #check(all: readonly Kept[]): Promise<boolean> {
    if (this.#isChecking || all.length === 0) return false;
    this.#isChecking = true;
    const { claims, clock, logger } = this.#deps;
    try {
      for (let from = 0; from < all.length; from += AT_ONCE) {
        const some = all.slice(from, from + AT_ONCE).filter(({ at }) => clock.now() - at <= MAX_AGE_MS);
        await Promise.all(some.map(({ run, at }) => claims.keep(run, Math.max(0, clock.now() - at))));
      }
      return true;
    } catch (error) {
      logger.debug({ err: error }, 'accepted runs could not be checked, retrying');
      return false;
    } finally {
      this.#isChecking = false;
    }
  }

  #remove(runId: string): void {
    const kept = this.#runs.get(runId);
    if (!kept) return;
    this.#runs.delete(runId);
    this.#size -= kept.size;
  }
}
