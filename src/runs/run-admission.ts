import { z } from 'zod';
import type { Clock } from '../lib/clock.ts';
import { parseJson } from '../lib/json.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { onRestored } from '../redis/subscriptions.ts';

/**
 * Share of its time limit that a run may spend in the queue and in its execution, by the estimate. The rest is for the
 * error of the estimate, which assumes that the next runs take as long as the latest ones.
 */
const PLANNED_SHARE = 0.8;
/** A worker whose slots are all occupied reports the queue twice per second. Without reports there is no estimate. */
const REPORT_VALID_MS = 3_000;
const MIN_RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;
/** Refused clients return over this part of the wait in addition, and not all at once. */
const RETRY_SPREAD = 0.5;

/** The run queue, as a worker reports it. */
const QueueLoad = z.object({
  /** Runs that no worker has received yet. */
  waiting: z.number().min(0),
  /** Runs that all workers execute at a time. */
  slots: z.number().min(1),
  /** Mean time for which a run occupies a slot, ms. */
  mean_ms: z.number().min(0),
});
export type QueueLoad = z.infer<typeof QueueLoad>;

export interface RunAdmissionDeps {
  readonly subscriber: Redis;
  readonly keys: Keys;
  readonly clock: Pick<Clock, 'now'>;
}

/** Reports the run queue to all gateways. @throws RedisUnavailable */
export async function reportQueueLoad(redis: Redis, keys: Keys, load: QueueLoad): Promise<void> {
  await mapRedisErrors(redis.spublish(keys.runQueueLoad, JSON.stringify(load)));
}

/**
 * Decides whether a new run would still be executed within its time limit. The decision costs no round trip: workers
 * publish the queue while runs wait. Between two reports a gateway adds the runs that it accepted itself, but not those
 * of other gateways: the estimate can be too low by what these accept within half a second.
 */
export class RunAdmission {
  readonly #deps: RunAdmissionDeps;
  #load: QueueLoad | undefined;
  #reportedAt = 0;
  /** Runs accepted by this gateway since the last report. */
  #added = 0;
  #stop: () => void = () => undefined;

  constructor(deps: RunAdmissionDeps) {
    this.#deps = deps;
  }

  /** @throws RedisUnavailable */
  async start(): Promise<void> {
    const { subscriber, keys } = this.#deps;
    const onMessage = (channel: string, text: string) => {
      if (channel === keys.runQueueLoad) this.onReport(text);
    };
    subscriber.on('smessage', onMessage);
    const removeRestored = onRestored(
      subscriber,
      () => [keys.runQueueLoad],
      () => undefined,
    );
    this.#stop = () => {
      removeRestored();
      subscriber.off('smessage', onMessage);
    };
    await mapRedisErrors(subscriber.ssubscribe(keys.runQueueLoad));
  }

  stop(): void {
    this.#stop();
  }

  /** Replaces the estimate. A report of another version that cannot be read is ignored. */
  onReport(text: string): void {
    const load = QueueLoad.safeParse(parseJson(text));
    if (!load.success) return;
    this.#load = load.data;
    this.#reportedAt = this.#deps.clock.now();
    this.#added = 0;
  }

  /** Counts a run that this gateway accepted. */
  added(): void {
    this.#added += 1;
  }

  /**
   * Returns the error for a new run that would not be executed in time, by the current estimate.
   * @param timeoutMs milliseconds from the acceptance of the run to its end
   * @returns undefined if it can be accepted, or without an estimate
   */
  refusal(timeoutMs: number): TollgateError | undefined {
    const load = this.#load;
    const age = this.#deps.clock.now() - this.#reportedAt;
    // A clock that is set back makes a report appear to come from the future.
    if (!load || load.waiting === 0 || Math.abs(age) > REPORT_VALID_MS) return undefined;
    const waitMs = ((load.waiting + this.#added) * load.mean_ms) / load.slots - Math.max(0, age);
    const planned = PLANNED_SHARE * timeoutMs;
    // Once for its own execution, and once for what the report lacks: the rest of the runs that occupy the slots, and
    // runs that arrived while it was on its way. The mean can be that of agents with a longer time limit.
    const most = planned - Math.min(2 * load.mean_ms, planned / 2);
    if (waitMs <= most) return undefined;
    const retryMs = Math.min(Math.max(waitMs - most, MIN_RETRY_MS), MAX_RETRY_MS);
    return new TollgateError('OVERLOADED', {
      text: 'More runs wait than can be executed within their time limit. Retry later.',
      retryAfterMs: retryMs * (1 + RETRY_SPREAD * Math.random()),
    });
  }
}
