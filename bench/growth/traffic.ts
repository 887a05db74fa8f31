import { setTimeout as delay } from 'node:timers/promises';
import { partitionOf } from '../../src/redis/keys.ts';

/** Seconds between two renewals of a lease (a third of `CONNECTION_LEASE_SECONDS`). */
const RENEWED_EVERY = 10;
/** A gateway renews by partition, in slices of this duration. */
const TICK_MS = 250;
/** Every user reconnects within five minutes, and a tenth of them starts a turn per minute. */
const RECONNECTS_PER_USER = 1 / 300;
const TURNS_PER_USER = 1 / 600;
/** Events of a turn; one of them has a usage record. */
const EVENTS_PER_TURN = 6;
const INGESTED_EVERY_TICKS = 2;

type ForUser = (userId: string) => Promise<unknown>;

export interface TrafficOptions {
  readonly ids: readonly string[];
  readonly seconds: number;
  readonly renew: (ids: readonly string[]) => Promise<unknown>;
  readonly admit: ForUser;
  readonly append: ForUser;
  readonly record: ForUser;
  readonly ingest: () => Promise<unknown>;
}

/** The traffic of users at the rates of docs/performance.md, in ticks. */
export class Traffic {
  readonly #options: TrafficOptions;
  readonly #byPartition: readonly string[];
  readonly #due = { reconnects: 0, turns: 0 };
  readonly #counts = { renewals: 0, admissions: 0, events: 0, records: 0 };
  #next = 0;

  constructor(options: TrafficOptions) {
    this.#options = options;
    this.#byPartition = options.ids.toSorted((one, other) => partitionOf(one) - partitionOf(other));
  }

  /** Runs for the given time, and returns the number of each operation by the name of its measurement. */
  async run(): Promise<Readonly<Record<string, number>>> {
    const ticks = Math.ceil((this.#options.seconds * 1_000) / TICK_MS);
    const startedAt = performance.now();
    for (let tick = 0; tick < ticks; tick++) {
      await this.#tick(tick);
      await delay(Math.max(0, startedAt + (tick + 1) * TICK_MS - performance.now()));
    }
    const { renewals, admissions, events, records } = this.#counts;
    return {
      'renewal of a lease': renewals,
      admission: admissions,
      'further event': events,
      'event with a usage record': records,
      'ingestion of a record': records,
    };
  }

  async #tick(tick: number): Promise<void> {
    const { ids, renew, admit, append, record, ingest } = this.#options;
    const slices = (RENEWED_EVERY * 1_000) / TICK_MS;
    const size = Math.ceil(ids.length / slices);
    const slice = this.#byPartition.slice((tick % slices) * size, ((tick % slices) + 1) * size);
    this.#counts.renewals += slice.length;
    const work: Promise<unknown>[] = [renew(slice)];
    for (const userId of this.#users('reconnects', RECONNECTS_PER_USER)) {
      this.#counts.admissions += 1;
      work.push(admit(userId));
    }
    for (const userId of this.#users('turns', TURNS_PER_USER)) {
      this.#counts.events += EVENTS_PER_TURN - 1;
      this.#counts.records += 1;
      for (let at = 1; at < EVENTS_PER_TURN; at++) work.push(append(userId));
      work.push(record(userId));
    }
    await Promise.all(work);
    if (tick % INGESTED_EVERY_TICKS === 0) await ingest();
  }

  /** Returns the users that are due in this tick. */
  #users(kind: 'reconnects' | 'turns', perUserAndSecond: number): string[] {
    const { ids } = this.#options;
    this.#due[kind] += (ids.length * perUserAndSecond * TICK_MS) / 1_000;
    const count = Math.floor(this.#due[kind]);
    this.#due[kind] -= count;
    return Array.from({ length: count }, () => ids[this.#next++ % ids.length] ?? '');
  }
}
