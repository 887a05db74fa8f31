import { Worker } from 'node:worker_threads';
import type { ThreadNews, ThreadOrder } from './client-thread.ts';
import {
  COUNTERS,
  type Counts,
  type Histograms,
  merged,
  newCounts,
  newHistograms,
  percentileMs,
  type Tick,
} from './measures.ts';
import { type Mix, type Transport, WeightedPicker } from './mix.ts';
import type { VirtualUsersPlan } from './virtual-users.ts';

export interface RunPlan {
  readonly url: string;
  readonly mix: Mix;
  readonly tokens: readonly string[];
  readonly iterationsPerSecond: number;
  readonly connectsPerSecond: number;
  readonly durationMs: number;
  /** Time that iterations have to end after the load. */
  readonly graceMs: number;
  readonly threads: number;
}

/** One second of all threads, for the progress line and the plots. Times in ms, NaN if there are none. */
export interface Second {
  /** Seconds since the first connection attempt. */
  readonly at: number;
  readonly connected: number;
  readonly inFlight: number;
  readonly turnsDue: number;
  readonly turnsCompleted: number;
  readonly turnsFailed: number;
  readonly firstEventP50: number;
  readonly firstEventP99: number;
  readonly runP50: number;
  readonly runP99: number;
}

export interface RunResult {
  readonly counts: Counts;
  readonly errors: Readonly<Record<string, number>>;
  readonly histograms: Histograms;
  readonly seconds: readonly Second[];
  /** From the first attempt until each user has received a first answer. */
  readonly rampSeconds: number;
  readonly loadSeconds: number;
  /** The highest value of all threads. */
  readonly loopDelayP99Ms: number;
  /** CPU time of all threads during the load, in cores. */
  readonly clientCores: number;
}

/** Seconds kept for the plots. A longer run drops every other one and continues at half the resolution. */
const MAX_SECONDS = 1_800;

/** Runs all threads and aggregates their reports. */
export class Run {
  readonly #plan: RunPlan;
  readonly #threads: readonly Worker[];
  readonly #latest: (Tick | undefined)[];
  readonly #histograms = newHistograms();
  readonly #progress: (second: Second) => void;
  #seconds: Second[] = [];
  #stride = 1;
  #ticks = 0;
  #loopDelayP99Ms = 0;
  #isStopped = false;

  /** @param progress called once per second */
  constructor(plan: RunPlan, progress: (second: Second) => void) {
    this.#plan = plan;
    this.#progress = progress;
    this.#threads = virtualUserPlans(plan).map((workerData) => {
      return new Worker(new URL('./client-thread.ts', import.meta.url), { workerData });
    });
    this.#latest = this.#threads.map(() => undefined);
  }

  /** @throws Error when a thread fails */
  async run(): Promise<RunResult> {
    const startedAt = performance.now();
    const connected = this.#threads.map((thread) => saying(thread, 'connected'));
    const done = this.#threads.map((thread) => saying(thread, 'done'));
    for (const [at, thread] of this.#threads.entries()) {
      thread.on('message', (news: ThreadNews) => this.#onMessage(at, news));
    }
    const ticking = setInterval(() => this.#tick((performance.now() - startedAt) / 1_000), 1_000);
    try {
      await Promise.race([Promise.all(connected), Promise.all(done)]);
      const loadedAt = performance.now();
      const cpuBefore = process.cpuUsage();
      const { durationMs, graceMs } = this.#plan;
      if (!this.#isStopped) this.#send({ do: 'begin', durationMs, graceMs });
      await Promise.all(done);
      const loadSeconds = (performance.now() - loadedAt) / 1_000;
      const { user, system } = process.cpuUsage(cpuBefore);
      return {
        counts: this.#counts(),
        errors: this.#errors(),
        histograms: this.#histograms,
        seconds: this.#seconds,
        rampSeconds: (loadedAt - startedAt) / 1_000,
        loadSeconds,
        loopDelayP99Ms: this.#loopDelayP99Ms,
        clientCores: (user + system) / 1e6 / loadSeconds,
      };
    } finally {
      clearInterval(ticking);
      await Promise.all(this.#threads.map((thread) => thread.terminate()));
    }
  }

  /** Ends the load early; `run` resolves with the results so far. */
  stop(): void {
    this.#isStopped = true;
    this.#send({ do: 'stop' });
  }

  #send(order: ThreadOrder): void {
    for (const thread of this.#threads) thread.postMessage(order);
  }

  #onMessage(thread: number, news: ThreadNews): void {
    if (news.is === 'connected') return;
    this.#latest[thread] = news.tick;
    if (news.is !== 'done') return;
    this.#loopDelayP99Ms = Math.max(this.#loopDelayP99Ms, news.loopDelayP99Ms);
    for (const [name, histogram] of Object.entries(news.histograms)) {
      this.#histograms[name as keyof Histograms].add(histogram);
    }
  }

  #tick(at: number): void {
    const ticks = this.#latest.filter((tick) => tick !== undefined);
    const sum = (pick: (tick: Tick) => number) => ticks.reduce((total, tick) => total + pick(tick), 0);
    const firstEvent = merged(ticks.map((tick) => tick.firstEvent));
    const run = merged(ticks.map((tick) => tick.run));
    const second: Second = {
      at,
      connected: sum((tick) => tick.connected),
      inFlight: sum((tick) => tick.inFlight),
      turnsDue: sum((tick) => tick.counts.turns_due),
      turnsCompleted: sum((tick) => tick.counts.turns_completed),
      turnsFailed: sum((tick) => tick.counts.turns_failed),
      firstEventP50: percentileMs(firstEvent, 50),
      firstEventP99: percentileMs(firstEvent, 99),
      runP50: percentileMs(run, 50),
      runP99: percentileMs(run, 99),
    };
    this.#progress(second);
    if (this.#ticks++ % this.#stride !== 0) return;
    this.#seconds.push(second);
    if (this.#seconds.length < MAX_SECONDS) return;
    this.#seconds = this.#seconds.filter((_, index) => index % 2 === 0);
    this.#stride *= 2;
  }

  #counts(): Counts {
    const counts = newCounts();
    for (const tick of this.#latest) for (const name of COUNTERS) counts[name] += tick?.counts[name] ?? 0;
    return counts;
  }

  #errors(): Record<string, number> {
    const errors: Record<string, number> = {};
    for (const tick of this.#latest) {
      for (const [kind, count] of Object.entries(tick?.errors ?? {})) errors[kind] = (errors[kind] ?? 0) + count;
    }
    return errors;
  }
}

/** Deals the users to the threads in rotation, so that each thread has the whole mix. */
function virtualUserPlans(plan: RunPlan): VirtualUsersPlan[] {
  const { url, mix, tokens, threads } = plan;
  const picker = new WeightedPicker<Transport>(mix.transports);
  const users = tokens.map((token) => ({ token, transport: picker.pick() }));
  return Array.from({ length: threads }, (_, thread) => {
    const own = users.filter((_user, at) => at % threads === thread);
    return {
      url,
      mix,
      tokens: own.map(({ token }) => token),
      transports: own.map(({ transport }) => transport),
      iterationsPerSecond: plan.iterationsPerSecond / threads,
      connectsPerSecond: plan.connectsPerSecond / threads,
      threads,
    };
  });
}

/** Resolves with the thread's first report of that kind. @throws Error if the thread fails before */
function saying(thread: Worker, kind: ThreadNews['is']): Promise<void> {
  return new Promise((resolve, reject) => {
    thread.on('message', (news: ThreadNews) => {
      if (news.is === kind) resolve();
    });
    thread.once('error', reject);
    thread.once('exit', () => reject(new Error('a client thread ended early')));
  });
}
