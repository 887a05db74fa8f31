import type { Append, NewEvent, Reserved } from '../events/append.ts';
import type { UserLogWriter } from '../events/user-log-writer.ts';
import type { Clock } from '../lib/clock.ts';
import { RedisUnavailable, retryDuringOutage } from '../redis/errors.ts';
import { OUTAGE_RETRY_MS } from '../tools/outcome.ts';
import type { OpenCall } from './open-calls.ts';
import {
  appendLength,
  type JournalEntry,
  joined,
  type Pending,
  type SideEffects,
  serialized,
  sizeOf,
  type Written,
} from './run-append.ts';
import type { InputWait, RunClaims } from './run-claims.ts';
import { RunOwnershipLost } from './run-end.ts';
import type { ClaimedRun } from './stored-run.ts';

/**
 * Maximum silence of Redis after which a writer restores its run: the erasure of a user begins to delete 90 s after the
 * last run of the user, and a process that was suspended for longer must not write the deleted data again.
 */
const RESTORE_WITHIN_MS = 90_000;
/** Maximum number of times that a run is restored for one event. */
const MAX_RESTORES = 3;

export interface RunWriterDeps {
  readonly log: UserLogWriter;
  readonly clock: Clock;
  readonly claims: Pick<RunClaims, 'restore' | 'suspend' | 'journal' | 'openCalls'>;
  /** Called after Redis had lost the run or events of it, and the run was restored. */
  readonly onRestored?: () => void;
}

interface Wait extends Omit<InputWait, 'fencingToken'> {
  /** When the first input request expires, by the clock of this process. */
  readonly endsAt: number;
}

/**
 * Writes the events of one run in order, for the worker that claimed it.
 *
 * Events that are added in the same turn of the event loop, or while an append is in flight, are appended together.
 *
 * The writer keeps the events that it wrote until the run has ended. When Redis has lost the run or the last of its
 * events (a failover to a lagging replica, a restart from an older file), the writer restores the run and appends what
 * is missing, so that the run also ends in the history that remains.
 */
export class RunWriter {
  readonly #deps: RunWriterDeps;
  readonly #run: ClaimedRun;
  readonly #onCancelRequested: () => void;
  readonly #startedAt: number;
  /** The events after those of earlier workers, in order. The last one may not be in the log yet. */
  readonly #written: Written[] = [];
  /** Number of events of the run that are in the log, according to this worker. */
  #eventsInLog: number;
  /** When Redis last confirmed that this worker owns the run, by the clock of this process. */
  #confirmedAt: number;
  #ended = false;
  /** The wait with which the run was suspended. */
  #wait: Wait | undefined;
  #appends = 0;
  readonly #pending: Pending[] = [];
  #isAppending = false;
  #hasEntries = false;
  #size = 0;
  /** Settles when the current writer of `#written` is done; never rejects. */
  #last: Promise<void> = Promise.resolve();

  /** @param cancelRequested called when the reply to an append says that cancellation was requested */
  constructor(deps: RunWriterDeps, run: ClaimedRun, cancelRequested: () => void) {
    this.#deps = deps;
    this.#run = run;
    this.#onCancelRequested = cancelRequested;
    this.#confirmedAt = deps.clock.now();
    this.#startedAt = this.#confirmedAt - run.waitedMs;
    this.#eventsInLog = run.events;
  }

  /** Approximate bytes of the events that this writer keeps. */
  get size(): number {
    return this.#size;
  }

  /** Number of events that are in no append yet. */
  get pending(): number {
    return this.#pending.length;
  }

  /** Milliseconds since the run was accepted, without the time of waiting for input. */
  get elapsedMs(): number {
    return Math.max(0, Math.round(this.#deps.clock.now() - this.#startedAt));
  }

  /**
   * Restores the run if Redis has lost it or events of it, its terminal event or its suspension included. Does nothing
   * when another worker owns the run.
   */
  confirm(): Promise<void> {
    const confirmed = this.#last.then(async () => {
      if (!(await this.#restore())) return;
      await this.#flush();
      // A restored run has lost that it waits. Nothing changes while it waits, or after the answer.
      if (this.#wait) await this.#suspendUntil(this.#wait);
    });
    this.#last = confirmed.catch(() => undefined);
    return confirmed;
  }

  /**
   * Appends an event, in the order of the calls. Resolves when Redis has confirmed it.
   * @returns the decision on its reservation; undefined for none
   */
  add(event: NewEvent, sideEffects: SideEffects): Promise<Reserved | undefined> {
    return new Promise((resolve, reject) => {
      this.#pending.push({ written: { event, ...sideEffects }, resolve, reject });
      if (this.#isAppending) return;
      this.#isAppending = true;
      this.#last = this.#last.then(() => this.#appendPending());
    });
  }

  /** Stores a journal entry without an event, in the order of the appends. @throws RunOwnershipLost */
  journal(entry: JournalEntry): Promise<void> {
    this.#hasEntries = true;
    const store = () => this.#deps.claims.journal(this.#run, this.#run.fencingToken, entry);
    const stored = this.#last.then(async () => {
      await this.#flush();
      let outcome = await this.#retried(store);
      if (outcome === 'behind' && (await this.#restore())) {
        await this.#flush();
        outcome = await this.#retried(store);
      }
      if (outcome !== 'stored') throw new RunOwnershipLost(outcome);
    });
    this.#last = stored.catch(() => undefined);
    return stored;
  }

  /** Returns the calls of the run that have not ended, by the log; none if it cannot be read. */
  async openCalls(): Promise<readonly OpenCall[]> {
    if (this.#run.events === 0) return [];
    // The end of the run matters more than the end of its calls.
    return this.#retried(() => this.#deps.claims.openCalls(this.#run)).catch(() => []);
  }

  /** Resolves when no append is in flight; never rejects. */
  settled(): Promise<void> {
    return this.#last;
  }

  /**
   * Suspends the run until one of its input requests is answered or expires. Nothing can be written afterwards.
   * @returns `answered` when the run can continue at once
   * @throws RunOwnershipLost
   */
  async suspend(wait: Omit<InputWait, 'fencingToken'>): Promise<'waiting' | 'answered'> {
    this.#ended = true;
    const wanted = { ...wait, endsAt: this.#deps.clock.now() + wait.expiresMs };
    for (let restores = 0; ; restores++) {
      const outcome = await this.#suspendUntil(wanted);
      if (outcome === 'waiting') this.#wait = wanted;
      if (outcome === 'waiting' || outcome === 'answered') return outcome;
      if (outcome !== 'behind' || restores === MAX_RESTORES || !(await this.#restore())) {
        throw new RunOwnershipLost(outcome);
      }
      await this.#flush();
    }
  }

  #suspendUntil({ endsAt, ...wait }: Wait) {
    const { fencingToken } = this.#run;
    return this.#retried(() => {
      const expiresMs = Math.max(0, endsAt - this.#deps.clock.now());
      return this.#deps.claims.suspend(this.#run, { ...wait, expiresMs, fencingToken });
    });
  }

  /** Never rejects: the callers of the events receive the errors. */
  async #appendPending(): Promise<void> {
    // By then the agent has emitted what it emits in this turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#pending.length > 0) {
      const next = this.#pending.splice(0, appendLength(this.#pending));
      try {
        // An event whose result is unknown, because a Redis outage outlasted the retries, must precede every other:
        // Redis could otherwise take the next event for its repetition, and that event would be lost.
        await this.#flush();
        if (this.#ended) throw new RunOwnershipLost('finished');
        this.#appends += 1;
        for (const { written } of next) {
          this.#written.push({ ...written, append: this.#appends });
          this.#size += sizeOf(written.event);
        }
        const reserved = await this.#flush();
        for (const { resolve } of next) resolve(reserved);
      } catch (error) {
        // After an outage these events still precede those behind them. After any other error they are missing, and so
        // must be the events that were emitted on the assumption that these are in the log.
        const failed = error instanceof RedisUnavailable ? next : [...next, ...this.#pending.splice(0)];
        for (const { reject } of failed) reject(error);
      }
    }
    this.#isAppending = false;
  }

  /**
   * Makes the appends that are not in the log. Retries during a Redis outage: the script recognises an append that did
   * arrive, so no event is written twice. A repeated append has the same events.
   * @returns the decision on the reservation of the last append
   */
  async #flush(): Promise<Reserved | undefined> {
    let reserved: Reserved | undefined;
    for (let restores = 0; ; ) {
      const next = this.#unconfirmed();
      if (next.length === 0) return reserved;
      const append = this.#appendOf(next);
      const result = await this.#retried(() => this.#deps.log.append(append)).catch((error: unknown) => {
        // Only an outage leaves the result unknown. Events that cannot be written must not keep others from the log.
        if (!(error instanceof RedisUnavailable)) this.#written.length -= next.length;
        throw error;
      });
      if (result.outcome === 'behind') {
        restores += 1;
        if (restores > MAX_RESTORES || !(await this.#restore())) throw new RunOwnershipLost('behind');
        continue;
      }
      if (!('seq' in result)) throw new RunOwnershipLost(result.outcome);
      this.#confirmedAt = this.#deps.clock.now();
      this.#eventsInLog += next.length;
      if (append.ends) this.#ended = true;
      if (result.cancelRequested) this.#onCancelRequested();
      reserved = result.reserved;
    }
  }

  /** Returns the events of the first append that is not in the log. */
  #unconfirmed(): Written[] {
    const at = this.#eventsInLog - this.#run.events;
    const first = this.#written[at];
    let end = at;
    while (first && this.#written[end]?.append === first.append) end += 1;
    return this.#written.slice(at, end);
  }

  #appendOf(written: readonly Written[]): Append {
    const { userId, runId, fencingToken, journal, steps, inputs } = this.#run;
    const earlier = this.#written.slice(0, this.#eventsInLog - this.#run.events);
    const replayed = journal.size + steps.size + inputs.size > 0;
    const hasJournal = replayed || this.#hasEntries || earlier.some(({ event }) => event.journal);
    const run = { runId, fencingToken, eventsInLog: this.#eventsInLog };
    return { userId, run, ...joined(written, hasJournal) };
  }

  /** Returns whether this worker owns the run again. */
  async #restore(): Promise<boolean> {
    const silentMs = this.#deps.clock.now() - this.#confirmedAt;
    if (silentMs > RESTORE_WITHIN_MS) return false;
    const restored = await this.#retried(() => {
      return this.#deps.claims.restore(this.#run, this.elapsedMs);
    });
    if (restored.outcome !== 'claimed') return false;
    const isBehind = restored.events < this.#eventsInLog;
    this.#confirmedAt = this.#deps.clock.now();
    this.#eventsInLog = restored.events;
    // With their old time, a node could take a lost event for the one at its position, and would miss that the log went
    // back (`delivered` in events/event-log.ts).
    const missing = this.#written.splice(restored.events - this.#run.events);
    const timestamp = this.#timestamp();
    for (const { event, ...rest } of missing) {
      this.#written.push({ event: serialized({ ...event, fields: { ...event.fields, timestamp } }), ...rest });
    }
    if (isBehind) this.#deps.onRestored?.();
    return true;
  }

  #retried<T>(work: () => Promise<T>): Promise<T> {
    return retryDuringOutage(this.#deps.clock, OUTAGE_RETRY_MS, work);
  }

  #timestamp(): string {
    return new Date(this.#deps.clock.now()).toISOString();
  }
}
