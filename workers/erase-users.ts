import type { ErasureInProgress, ErasurePhase, Erasures } from '../src/accounts/erasures.ts';
import type { UserData } from '../src/accounts/user-data.ts';
import type { Clock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Redis } from '../src/redis/client.ts';
import { mapRedisErrors, RedisUnavailable } from '../src/redis/errors.ts';
import { type Keys, partitionOf } from '../src/redis/keys.ts';
import type { Runs } from '../src/runs/runs.ts';
import { HOUR_MS, hourOf, startOf } from '../src/usage/hours.ts';
import { TALLY_SECONDS } from '../src/usage/ledger/append-batch.ts';
import { LedgerBroken, type LedgerErasure } from '../src/usage/ledger-erasure.ts';
import { CORRECTIONS, isIngestedUpTo, RESUBMITTED } from '../src/usage/outbox/outboxes.ts';

/** Erasures that one job processes, including waiting ones; later erasures wait for these. */
const ERASURES_AT_ONCE = 1_000;
/** Maximum steps of one erasure per job: a few seconds of work. */
const STEPS_PER_JOB = 50;
/** Time for every node to read the invalidation stream; a node reads it at least every 2 s. */
const INVALIDATIONS_READ_MS = 5_000;

/**
 * Time between the end of the user's last run or call and the first deletion. In this time a process may still write or
 * resubmit data of the user: a ticket lives 30 s, a process retries the end of a tool call for 60 s, and it keeps
 * acknowledged records for 60 s.
 */
export const ERASURE_QUIET_MS = 90_000;

export interface EraseUsersDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly erasures: Erasures;
  readonly userData: UserData;
  readonly ledgerErasure: LedgerErasure;
  readonly runs: Pick<Runs, 'cancel'>;
  readonly runQueue: { remove(runIds: ReadonlySet<string>): Promise<void> };
  readonly clock: Clock;
  readonly logger: Logger;
  readonly quietMs?: number | undefined;
}

/**
 * Continues every erasure in progress. Several workers may run it concurrently: each step can be repeated and stores
 * where the next step begins.
 * @returns the number of erasures that ended
 */
export async function eraseUsers(deps: EraseUsersDeps): Promise<number> {
  let ended = 0;
  for (const erasure of await deps.erasures.inProgress(ERASURES_AT_ONCE)) {
    try {
      if (await continued(erasure, deps)) ended += 1;
    } catch (error) {
      if (error instanceof RedisUnavailable) throw error;
      const waitingFor = error instanceof LedgerBroken ? 'operator' : 'retry';
      // Logged once per cause; the state of the erasure shows it until the step succeeds.
      if (erasure.notes.waiting_for !== waitingFor) {
        deps.logger.error({ erasure: erasure.id, err: error }, 'erasure cannot continue');
      }
      const now = await deps.erasures.again(erasure);
      if (now) await deps.erasures.note(now, { waiting_for: waitingFor });
    }
  }
  return ended;
}

/** Result of a step: `more` to continue, what to wait for, or `ended`. */
type Step = 'more' | 'ended' | { readonly waitingFor: string };

async function continued(first: ErasureInProgress, deps: EraseUsersDeps): Promise<boolean> {
  let erasure = first;
  for (let steps = 0; steps < STEPS_PER_JOB; steps++) {
    const step = await PHASES[erasure.phase](erasure, deps);
    if (step === 'ended') {
      deps.logger.info({ erasure: erasure.id }, 'user data erased');
      return true;
    }
    if (step !== 'more') {
      await deps.erasures.note(erasure, { waiting_for: step.waitingFor });
      return false;
    }
    const next = await deps.erasures.again(erasure);
    if (!next) return false;
    erasure = next;
  }
  return false;
}

const PHASES: Readonly<Record<ErasurePhase, (erasure: ErasureInProgress, deps: EraseUsersDeps) => Promise<Step>>> = {
  /** Cancels the user's runs. The gateways close the connections when they receive the invalidation of the account. */
  async closing(erasure, { userData, runs, erasures, redis }) {
    const { userId } = erasure;
    const now = await redisNow(redis);
    const { runs: running, calls, connections } = await userData.live(userId, now);
    const unlimited = { allowed: Promise.resolve(), messages: Number.MAX_SAFE_INTEGER };
    for (const runId of running) await runs.cancel(userId, runId, unlimited);
    if (connections > 0) return { waitingFor: 'connections' };
    if (running.length > 0) return { waitingFor: 'runs' };
    if (calls > 0) return { waitingFor: 'tool_calls' };
    await erasures.enter(erasure, 'quiescing', { since: now });
    return 'more';
  },

  async quiescing(erasure, { redis, keys, erasures, quietMs = ERASURE_QUIET_MS }) {
    const { userId, notes } = erasure;
    if ((await redisNow(redis)) - Number(notes.since) < quietMs) return { waitingFor: 'late_writes' };
    const marks = await Promise.all(outboxesOf(keys, userId).map(({ key }) => lastId(redis, key)));
    await erasures.enter(erasure, 'ingesting', { marks: marks.join(' ') });
    return 'more';
  },

  /** Waits until the ledger contains all records of the user, because `listing` reads only the ledger. */
  async ingesting(erasure, { redis, keys, erasures, ledgerErasure }) {
    const { userId, notes } = erasure;
    const marks = (notes.marks ?? '').split(' ');
    for (const [at, outbox] of outboxesOf(keys, userId).entries()) {
      if (!(await isIngestedUpTo({ redis, keys }, outbox, marks[at] ?? ''))) return { waitingFor: 'ledger_writer' };
    }
    await erasures.enter(erasure, 'listing', { cursor: 0, until: await ledgerErasure.head(), listed_before: 0 });
    return 'more';
  },

  async listing(erasure, { redis, keys, erasures, ledgerErasure, clock }) {
    const { id, userId, notes } = erasure;
    const from = Number(notes.cursor);
    const until = Number(notes.until);
    if (from < until) {
      await ledgerErasure.list({ userId, pseudonym: id }, from, until, clock.now());
      return 'more';
    }
    const mark = await lastId(redis, keys.corrections);
    await erasures.enter(erasure, 'recording', { mark });
    return 'more';
  },

  /** Waits until the ledger contains the redaction entries. The records that they list must not be replaced before. */
  async recording(erasure, { redis, keys, erasures, ledgerErasure }) {
    const { notes } = erasure;
    const outbox = { name: CORRECTIONS, key: keys.corrections };
    if (!(await isIngestedUpTo({ redis, keys }, outbox, notes.mark ?? ''))) return { waitingFor: 'ledger_writer' };
    await erasures.enter(erasure, 'replacing', { replaced: notes.until ?? 0, head: await ledgerErasure.head() });
    return 'more';
  },

  async replacing(erasure, { erasures, ledgerErasure, clock }) {
    const { id, userId, notes } = erasure;
    const from = Number(notes.replaced);
    const head = Number(notes.head);
    if (from < head) {
      const replaced = await ledgerErasure.replace({ userId, pseudonym: id }, from, head);
      if (replaced === undefined) return { waitingFor: 'archive' };
      await erasures.note(erasure, { replaced });
      return 'more';
    }
    // The ledger may have received a correction of one of the records meanwhile: repeat until a pass lists nothing.
    const { listed = '0', listed_before, until = '0' } = notes;
    if (listed !== listed_before) {
      await erasures.enter(erasure, 'listing', { cursor: until, until: head, listed_before: listed });
      return 'more';
    }
    if (!(await ledgerErasure.eraseSuperseded({ userId, pseudonym: id }))) return { waitingFor: 'archive' };
    const now = clock.now();
    await erasures.enter(erasure, 'tallies', {
      hour: startOf(hourOf(now - TALLY_SECONDS * 1000)),
      last_hour: now + HOUR_MS,
    });
    return 'more';
  },

  async tallies(erasure, { erasures, ledgerErasure }) {
    const { id, userId, notes } = erasure;
    const from = Number(notes.hour);
    const to = Number(notes.last_hour);
    if (from < to) {
      await erasures.note(erasure, { hour: await ledgerErasure.renameTallies({ userId, pseudonym: id }, from, to) });
      return 'more';
    }
    await ledgerErasure.eraseCorrections({ userId, pseudonym: id });
    await erasures.enter(erasure, 'deleting');
    return 'more';
  },

  async deleting(erasure, { userData, erasures, runQueue, redis }) {
    const { id, userId } = erasure;
    for await (const keys of userData.keys(userId)) {
      const runs = keys.flatMap(({ name, id: runId }) => (name === 'run' && runId ? [runId] : []));
      if (runs.length > 0) await runQueue.remove(new Set(runs));
    }
    await erasures.count(id, 'keys', await userData.erase(userId, id));
    await erasures.advancePositions();
    await erasures.enter(erasure, 'finishing', { since: await redisNow(redis) });
    return 'more';
  },

  /**
   * Removes the invalidations that name the user. A node whose stream position is deleted reloads all its attachments,
   * so the phase first gives every node time to read past these entries.
   */
  async finishing(erasure, { redis, userData, erasures, clock, quietMs = ERASURE_QUIET_MS }) {
    const waitMs = Math.min(quietMs, INVALIDATIONS_READ_MS);
    if ((await redisNow(redis)) - Number(erasure.notes.since) < waitMs) return { waitingFor: 'announcements' };
    await userData.eraseInvalidations(erasure.userId);
    await erasures.end(erasure, clock.now());
    return 'ended';
  },

  async done() {
    return 'ended';
  },
};

/** Streams in which records of the user can wait for ingestion. */
function outboxesOf(keys: Keys, userId: string): { name: string; key: string }[] {
  const partition = partitionOf(userId);
  return [
    { name: String(partition), key: keys.outbox(partition) },
    { name: CORRECTIONS, key: keys.corrections },
    { name: RESUBMITTED, key: keys.resubmitted },
  ];
}

/** Returns the id of the last entry, "" for an empty stream. */
async function lastId(redis: Redis, stream: string): Promise<string> {
  const [last] = await mapRedisErrors(redis.xrevrange(stream, '+', '-', 'COUNT', 1));
  return last?.[0] ?? '';
}

async function redisNow(redis: Redis): Promise<number> {
  const [seconds, micros] = await mapRedisErrors(redis.time());
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000);
}
