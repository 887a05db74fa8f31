import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';

/** Counters. Each name is a key of the JSON results. */
export const COUNTERS = [
  /** Connection attempts during the ramp and all reconnects. */
  'connections_attempted',
  /** Opened transports: TCP, HTTP upgrade or Engine.IO handshake, depending on the transport. */
  'connections_opened',
  /** Welcomes that name a user. */
  'connections_authenticated',
  /** Connections closed by the server or the network. */
  'connections_lost',
  /** Reconnects after a lost connection or after a `resume` iteration cut it. */
  'reconnects',
  'resumes',
  'resume_failures',
  /** Iterations that the schedule requested. */
  'turns_due',
  /** Iterations dropped because no user was free and the bounded backlog was full. */
  'turns_dropped',
  'turns_completed',
  'turns_failed',
  /** Iterations in flight or in the backlog when the grace period ended. */
  'turns_unfinished',
  'runs_requested',
  'runs_completed',
  /** Durable events received. */
  'events',
  'events_lost',
  'events_repeated',
] as const;
export type Counter = (typeof COUNTERS)[number];
export type Counts = Record<Counter, number>;

/**
 * Latencies, in ms. Those of iterations count from the scheduled time, those of connections from the attempt.
 * `lateness` is the time between schedule and send: the share of the latency that the load generator causes.
 */
export const TIMINGS = ['connect', 'first_event', 'run', 'tool_call', 'ping', 'resume', 'lateness'] as const;
export type Timing = (typeof TIMINGS)[number];
export type Histograms = Readonly<Record<Timing, RecordableHistogram>>;

/** Distinct kinds of errors; further ones are counted as `other`. */
const MAX_ERROR_KINDS = 100;

const MICROSECONDS = 1_000;
/** Three significant digits (0.1 %) from 1 µs to ten minutes; 170 KB. Longer times count as ten minutes. */
const RANGE = { lowest: 1, highest: 600_000_000, figures: 3 } as const;
/** 1 % is precise enough for one second of a plot, and takes an eighth of the memory. */
const COARSE = { ...RANGE, figures: 2 } as const;

/** Node's built-in HdrHistogram: native, of fixed size, and transferable between threads. */
export function newHistograms(): Histograms {
  return Object.fromEntries(TIMINGS.map((timing) => [timing, createHistogram(RANGE)])) as unknown as Histograms;
}

export function newCounts(): Counts {
  return Object.fromEntries(COUNTERS.map((counter) => [counter, 0])) as Counts;
}

/** Merges the histograms of several threads for one second. */
export function merged(histograms: readonly RecordableHistogram[]): RecordableHistogram {
  const sum = createHistogram(COARSE);
  for (const histogram of histograms) sum.add(histogram);
  return sum;
}

/** Returns a percentile of a histogram in ms, or NaN if it is empty. @param share 0 to 100 */
export function percentileMs(histogram: RecordableHistogram, share: number): number {
  if (histogram.count === 0) return Number.NaN;
  return (share >= 100 ? histogram.max : histogram.percentile(share)) / MICROSECONDS;
}

/** One thread's report per second. Counts and gauges are totals; the histograms cover that second only. */
export interface Tick {
  readonly counts: Counts;
  readonly errors: Readonly<Record<string, number>>;
  readonly connected: number;
  readonly inFlight: number;
  readonly firstEvent: RecordableHistogram;
  readonly run: RecordableHistogram;
}

/** Counters and histograms of one thread, of fixed size for any duration and number of iterations. */
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

  /** @param kind a protocol error code, an HTTP status, or one word for the failure */
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

  /** Returns the current state with the histograms of the last second, and starts the next second. */
  tick(): Tick {
    const { counts, errors, connected, inFlight } = this;
    const tick = { counts: { ...counts }, errors: { ...errors }, connected, inFlight };
    const second = { firstEvent: this.#firstEvent, run: this.#run };
    // A histogram that was posted to another thread stays shared with it, so the next second needs new ones.
    this.#firstEvent = createHistogram(COARSE);
    this.#run = createHistogram(COARSE);
    return { ...tick, ...second };
  }
}
