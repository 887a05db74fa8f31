import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';

/** What is counted; every name stands in the JSON results. */
export const COUNTERS = [
  /** Attempts to connect, of the ramp and of everybody who came back. */
  'connections_attempted',
  /** The transport was open: TCP, HTTP upgrade or Engine.IO's handshake, as the road has it. */
  'connections_opened',
  /** A welcome that names the user. */
  'connections_authenticated',
  /** Ended by the server or the network, not by us. */
  'connections_lost',
  /** Came back after a loss or after a cut of our own. */
  'reconnects',
  'resumes',
  'resume_failures',
  /** Turns that the schedule asked for. */
  'turns_due',
  /** Turns for which no user was free for so long that the bounded backlog overflowed. */
  'turns_dropped',
  'turns_completed',
  'turns_failed',
  /** Turns that were under way, or waiting for a user, when the time after the schedule was over. */
  'turns_unfinished',
  'runs_requested',
  'runs_completed',
  /** Durable events that arrived. */
  'events',
  'events_lost',
  'events_repeated',
] as const;
export type Counter = (typeof COUNTERS)[number];
export type Counts = Record<Counter, number>;

/**
 * What is timed, in ms. Turns are timed from the moment they were due, connections from the attempt; `lateness` is how
 * long after that moment a turn was sent: the share of the figures that is the crowd's own.
 */
export const TIMINGS = ['connect', 'first_event', 'run', 'tool_call', 'ping', 'resume', 'lateness'] as const;
export type Timing = (typeof TIMINGS)[number];
export type Histograms = Readonly<Record<Timing, RecordableHistogram>>;

/** Kinds of errors that are told apart; the rest are counted as `other`. */
const MAX_ERROR_KINDS = 100;

const MICROSECONDS = 1_000;
/** 0.1 % exact from 1 µs to ten minutes; 170 KB. What is beyond counts as ten minutes. */
const RANGE = { lowest: 1, highest: 600_000_000, figures: 3 } as const;
/** 1 % is enough for a second of a plot, at an eighth of the memory. */
const COARSE = { ...RANGE, figures: 2 } as const;

/** HdrHistogram, which Node has built in: native, of fixed size, and passed between threads as it is. */
export function newHistograms(): Histograms {
  return Object.fromEntries(TIMINGS.map((timing) => [timing, createHistogram(RANGE)])) as unknown as Histograms;
}

export function newCounts(): Counts {
  return Object.fromEntries(COUNTERS.map((counter) => [counter, 0])) as Counts;
}

/** One second of several threads. */
export function merged(histograms: readonly RecordableHistogram[]): RecordableHistogram {
  const sum = createHistogram(COARSE);
  for (const histogram of histograms) sum.add(histogram);
  return sum;
}

/** A percentile of a histogram in ms; NaN where nothing was recorded. @param share 0 to 100 */
export function percentileMs(histogram: RecordableHistogram, share: number): number {
  if (histogram.count === 0) return Number.NaN;
  return (share >= 100 ? histogram.max : histogram.percentile(share)) / MICROSECONDS;
}

/** What one thread tells each second; counts and gauges are totals, histograms are of that second alone. */
export interface Tick {
  readonly counts: Counts;
  readonly errors: Readonly<Record<string, number>>;
  readonly connected: number;
  readonly inFlight: number;
  readonly firstEvent: RecordableHistogram;
  readonly run: RecordableHistogram;
}

/** One thread's counts and times: of fixed size, however long the run and however many the turns. */
export class Measures {
  readonly counts: Counts = newCounts();
  readonly histograms: Histograms = newHistograms();
  readonly errors: Record<string, number> = {};
  connected = 0;
  inFlight = 0;
  #firstEvent = createHistogram(COARSE);
  #run = createHistogram(COARSE);

  count(counter: Counter, by = 1): void {
    this.counts[counter] += by;
  }

  /** @param kind a code of the protocol, an HTTP status, or what went wrong in one word */
  error(kind: string): void {
    const isKnown = kind in this.errors;
    const name = isKnown || Object.keys(this.errors).length < MAX_ERROR_KINDS ? kind : 'other';
    this.errors[name] = (this.errors[name] ?? 0) + 1;
  }

  /** @param sinceMs by `performance.now()` of this thread */
  timed(timing: Timing, sinceMs: number): void {
    const micros = Math.round((performance.now() - sinceMs) * MICROSECONDS);
    const value = Math.min(Math.max(micros, RANGE.lowest), RANGE.highest);
    this.histograms[timing].record(value);
    if (timing === 'first_event') this.#firstEvent.record(value);
    if (timing === 'run') this.#run.record(value);
  }

  /** The state now, and the second's histograms; the next second begins. */
  tick(): Tick {
    const { counts, errors, connected, inFlight } = this;
    const tick = { counts: { ...counts }, errors: { ...errors }, connected, inFlight };
    const second = { firstEvent: this.#firstEvent, run: this.#run };
    // New ones, since a histogram that has been passed to another thread is shared with it.
    this.#firstEvent = createHistogram(COARSE);
    this.#run = createHistogram(COARSE);
    return { ...tick, ...second };
  }
}
