import { monitorEventLoopDelay } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { LOOP_SAMPLE_MS, type Metrics } from '../lib/metrics.ts';
import { acrossPeriods, type Figures, NO_FIGURES, since } from './figures.ts';
import { readMetrics } from './read-metrics.ts';
import { type SeriesStore, STEP_MS } from './series-store.ts';

/** Period of the readings: that of the lease renewals, which publish them. */
const READ_MS = 5_000;
/** Readings that are kept: the live figures are of the minute before. */
const KEPT_READINGS = 13;
const NS_PER_MS = 1e6;

/** Figures of a process in the last minute, which it publishes with its lease. */
export interface LiveFigures extends Figures {
  /** Seconds that the counters cover; less than 60 in the first minute. */
  readonly seconds: number;
}

interface Reading {
  readonly at: number;
  readonly figures: Figures;
}

interface SamplerDeps {
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Pick<Logger, 'debug'>;
  readonly store: SeriesStore;
}

/**
 * Reads the figures of this process every five seconds, keeps those of the last minute, and stores each full minute. A
 * minute that cannot be stored is lost: figures are no records.
 */
export class Sampler {
  readonly #deps: SamplerDeps;
  readonly #process: string;
  readonly #delay = monitorEventLoopDelay({ resolution: LOOP_SAMPLE_MS });
  readonly #stops: (() => void)[] = [];
  #readings: Reading[] = [];
  /** The last reading of the minute before. */
  #minuteStart: Reading | undefined;
  #hour: { readonly at: number; readonly minutes: Figures[] } = { at: 0, minutes: [] };
  #cpu = process.cpuUsage();
  #cpuAt = performance.now();
  #residentBytes = 0;
  #isReading = false;

  /** @param processId id of the node or worker */
  constructor(deps: SamplerDeps, processId: string) {
    this.#deps = deps;
    this.#process = processId;
  }

  start(): void {
    this.#delay.enable();
    void this.#read();
    this.#stops.push(this.#deps.clock.every(READ_MS, () => void this.#read()));
  }

  /** Stops, and stores the current minute, so that the last seconds of a process are in its series. */
  async stop(): Promise<void> {
    for (const stop of this.#stops) stop();
    this.#delay.disable();
    const latest = this.#readings.at(-1);
    if (latest) await this.#store(latest);
  }

  /** Figures of the last minute. */
  get live(): LiveFigures {
    const [first, last] = [this.#readings[0], this.#readings.at(-1)];
    if (!first || !last) return { ...NO_FIGURES, seconds: 0 };
    return { ...since(first.figures, last.figures), seconds: Math.max(0, Math.round((last.at - first.at) / 1000)) };
  }

  async #read(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      const read = await readMetrics(this.#deps.metrics);
      const reading = { at: this.#deps.clock.now(), figures: { ...read, gauges: { ...read.gauges, ...this.#own() } } };
      this.#readings = [...this.#readings, reading].slice(-KEPT_READINGS);
      this.#minuteStart ??= reading;
      if (minuteOf(reading.at) !== minuteOf(this.#minuteStart.at)) await this.#store(reading);
    } finally {
      this.#isReading = false;
    }
  }

  /** Figures that are no metrics, or whose metric a second reader would reset. */
  #own(): Record<string, number> {
    const p99 = this.#delay.percentile(99) / NS_PER_MS - LOOP_SAMPLE_MS;
    this.#delay.reset();
    const [used, now] = [process.cpuUsage(this.#cpu), performance.now()];
    const elapsedMs = Math.max(1, now - this.#cpuAt);
    this.#cpu = process.cpuUsage();
    this.#cpuAt = now;
    return {
      'memory.rss_bytes': this.#residentSet(),
      'memory.heap_bytes': getHeapStatistics().used_heap_size,
      'event_loop.p99_ms': Number.isFinite(p99) ? Math.max(0, Math.round(p99 * 10) / 10) : 0,
      'cpu.percent': Math.round(((used.user + used.system) / 1000 / elapsedMs) * 1000) / 10,
    };
  }

  /**
   * Node opens a file for this value, and throws if the process has no free descriptor: then the last value is kept.
   */
  #residentSet(): number {
    try {
      this.#residentBytes = process.memoryUsage.rss();
    } catch {
      // EMFILE
    }
    return this.#residentBytes;
  }

  async #store(reading: Reading): Promise<void> {
    const start = this.#minuteStart ?? reading;
    this.#minuteStart = reading;
    const at = minuteOf(start.at) * STEP_MS.minute;
    const minute = since(start.figures, reading.figures);
    const hourAt = Math.floor(at / STEP_MS.hour);
    if (hourAt !== this.#hour.at) this.#hour = { at: hourAt, minutes: [] };
    this.#hour.minutes.push(minute);
    const samples = { minute, hour: acrossPeriods(this.#hour.minutes) };
    await this.#deps.store.write(this.#process, at, samples).catch((error: Error) => {
      this.#deps.logger.debug({ error: error.message }, 'figures of a minute could not be stored');
    });
  }
}

function minuteOf(at: number): number {
  return Math.floor(at / STEP_MS.minute);
}
