import { AgentRunJob } from '../jobs.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import type { QueuedRun, RunCounts, RunQueue } from './run-queue.ts';

const GROUP = 'workers';
/** All workers are one consumer: Redis measures the idle time per entry, and a dead worker leaves no consumer behind. */
const CONSUMER = 'worker';
/**
 * Time over which ended runs are removed together. Redis skips the deleted entries at the head of the stream once per
 * removal, so that few removals cost less. It is far shorter than the time after which a run is delivered again.
 */
const REMOVED_WITHIN_MS = 100;
/** Number of ended runs that are removed at once, without further delay. */
const MAX_PER_REMOVAL = 100;
/** Entries read at a time while the queue is searched. */
const PAGE = 1_000;

type Entry = [id: string, fields: string[] | null];

/**
 * The run queue in one Redis stream with a consumer group. An entry is a run. It is delivered to one worker and stays
 * pending while that worker renews it; it is delivered again when it has not been renewed for a while, and deleted at its
 * end. Every operation is a plain command: a turn costs one XADD, one XREADGROUP, and a share of an XDEL and an XACK for
 * all runs that ended within `REMOVED_WITHIN_MS`.
 */
export class StreamRunQueue implements RunQueue {
  readonly #redis: Redis;
  readonly #key: string;
  #ended: string[] = [];
  #removal: PromiseWithResolvers<void> | undefined;

  constructor({ redis, keys }: { readonly redis: Redis; readonly keys: Keys }) {
    this.#redis = redis;
    this.#key = keys.runQueue;
  }

  async add({ user_id, run_id, traceparent }: AgentRunJob): Promise<void> {
    const trace = traceparent === undefined ? [] : ['traceparent', traceparent];
    await mapRedisErrors(this.#redis.xadd(this.#key, '*', 'user_id', user_id, 'run_id', run_id, ...trace));
  }

  /** Creates the consumer group if it is missing, also after a loss of data. Its first entry is the oldest one. */
  async prepare(): Promise<void> {
    try {
      await this.#redis.xgroup('CREATE', this.#key, GROUP, '0', 'MKSTREAM');
    } catch (error) {
      if (!isReply(error, 'BUSYGROUP')) throw error;
    }
  }

  /**
   * Waits for new runs.
   * @param blocking a connection on which nothing else waits
   * @param most maximum number of runs
   * @returns none after `waitMs`
   */
  async take(blocking: Redis, most: number, waitMs: number): Promise<QueuedRun[]> {
    const reply = (await blocking.xreadgroup(
      ...(['GROUP', GROUP, CONSUMER, 'COUNT', most, 'BLOCK', waitMs] as const),
      ...(['STREAMS', this.#key, '>'] as const),
    )) as [key: string, entries: Entry[]][] | null;
    return (reply?.[0]?.[1] ?? []).flatMap((entry) => runOf(entry, false));
  }

  /** Takes runs over whose worker has not renewed them for `idleMs`. @param most maximum number of runs */
  async takeOver(most: number, idleMs: number): Promise<QueuedRun[]> {
    const claim = this.#redis.xautoclaim(this.#key, GROUP, CONSUMER, idleMs, '0-0', 'COUNT', most);
    const [, entries] = (await mapRedisErrors(claim)) as [cursor: string, entries: Entry[]];
    return entries.flatMap((entry) => runOf(entry, true));
  }

  /** Returns how often a run has been delivered; 0 when it has ended. */
  async deliveries(id: string): Promise<number> {
    const pending = await mapRedisErrors(this.#redis.xpending(this.#key, GROUP, id, id, 1));
    const [entry] = pending as [id: string, consumer: string, idleMs: number, deliveries: number][];
    return entry?.[3] ?? 0;
  }

  /** Renews runs in progress. It neither fails nor counts as a delivery when one has ended or was taken over. */
  async renew(ids: readonly string[]): Promise<void> {
    // `call`, because the types of `xclaim` allow no list of ids.
    const claim = ['XCLAIM', this.#key, GROUP, CONSUMER, '0', ...ids, 'JUSTID'] as const;
    if (ids.length > 0) await mapRedisErrors(this.#redis.call(...claim));
  }

  /**
   * Removes an ended run, together with all others that end within `REMOVED_WITHIN_MS`.
   * @throws RedisUnavailable; the run is then delivered once more
   */
  end(id: string): Promise<void> {
    this.#ended.push(id);
    const removal = this.#removal ?? this.#scheduleRemoval();
    if (this.#ended.length >= MAX_PER_REMOVAL) this.#removeEnded();
    return removal.promise;
  }

  #scheduleRemoval(): PromiseWithResolvers<void> {
    const removal = Promise.withResolvers<void>();
    this.#removal = removal;
    // A process that ends before leaves entries that are delivered once more.
    const timer = setTimeout(() => this.#removal === removal && this.#removeEnded(), REMOVED_WITHIN_MS);
    timer.unref();
    return removal;
  }

  #removeEnded(): void {
    const [ids, removal] = [this.#ended, this.#removal];
    this.#ended = [];
    this.#removal = undefined;
    this.#delete(ids).then(removal?.resolve, removal?.reject);
  }

  async counts(): Promise<RunCounts> {
    const length = mapRedisErrors(this.#redis.xlen(this.#key));
    // Before the first worker there is no group.
    const summary = mapRedisErrors(this.#redis.xpending(this.#key, GROUP)).catch((error: unknown) => {
      if (isReply(error, 'NOGROUP')) return [0];
      throw error;
    });
    const [stored, [active]] = await Promise.all([length, summary]);
    return { waiting: Math.max(0, stored - Number(active)), active: Number(active) };
  }

  /** Removes runs by their run ids. Takes time proportional to the length of the queue. */
  async remove(runIds: ReadonlySet<string>): Promise<void> {
    for (let from = '-'; ; ) {
      const entries: Entry[] = await mapRedisErrors(this.#redis.xrange(this.#key, from, '+', 'COUNT', PAGE));
      const runs = entries.flatMap((entry) => runOf(entry, false));
      await this.#delete(runs.filter(({ job }) => runIds.has(job.run_id)).map(({ id }) => id));
      const last = entries.at(-1)?.[0];
      if (entries.length < PAGE || last === undefined) return;
      from = `(${last}`;
    }
  }

  /** Deletes before it acknowledges: a crash between the two leaves a pending entry, which the next takeover drops. */
  async #delete(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    const deleted = this.#redis.xdel(this.#key, ...ids);
    await mapRedisErrors(Promise.all([deleted, this.#redis.xack(this.#key, GROUP, ...ids)]).then(() => undefined));
  }
}

/** Returns whether Redis no longer has the consumer group: it lost its data. */
export function isGroupMissing(error: unknown): boolean {
  return isReply(error, 'NOGROUP');
}

function isReply(error: unknown, code: string): boolean {
  return error instanceof Error && error.message.startsWith(code);
}

/** An entry without the fields of a run is none of ours: it is skipped, and stays pending for an operator to see. */
function runOf([id, flat]: Entry, isTakenOver: boolean): QueuedRun[] {
  const fields: Record<string, string> = {};
  for (let at = 0; at + 1 < (flat?.length ?? 0); at += 2) fields[flat?.[at] ?? ''] = flat?.[at + 1] ?? '';
  const job = AgentRunJob.safeParse(fields);
  return job.success ? [{ id, job: job.data, isTakenOver }] : [];
}
