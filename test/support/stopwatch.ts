import { Worker } from 'node:worker_threads';
import { closeAfter } from './open-resources.ts';

const SAMPLE_EVERY_MS = 20;
/**
 * Waits for the processor that an operation consists of: the timers and sockets of the test, of a node and of Redis. Each
 * of them is as late as the slowest sample, at worst.
 */
const STEPS = 10;

/** Answers each message: what that takes is what the machine is late by, since there is nothing else to do. */
const ECHO = `const { parentPort } = require('node:worker_threads');
parentPort.on('message', () => parentPort.postMessage(''));`;

/**
 * CPU time of this process, in milliseconds, all of its threads: for work that computes in the process of the test, whose
 * elapsed time depends on the load, and which a `Stopwatch` takes for lateness.
 */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

/**
 * Measures elapsed time, and meanwhile how late a busy machine is: the round trip to an idle thread, every 20 ms. A bound
 * on elapsed time then holds on a machine of any load, and is as strict as it reads on an idle one.
 */
export class Stopwatch {
  readonly startedAt = performance.now();
  readonly #echo: Worker;
  #timer: NodeJS.Timeout | undefined;
  /** When the next sample would be answered on a machine that takes no time. */
  #dueAt = 0;
  #latestMs = 0;

  private constructor(echo: Worker) {
    this.#echo = echo;
    echo.on('message', () => {
      this.#latestMs = this.#lateness();
      this.#sample();
    });
    closeAfter('test', async () => {
      clearTimeout(this.#timer);
      await echo.terminate();
    });
    this.#sample();
  }

  /** Begins when the thread answers; samples until the test ends. */
  static async start(): Promise<Stopwatch> {
    const echo = new Worker(ECHO, { eval: true });
    await new Promise((resolve) => {
      echo.once('message', resolve);
      echo.postMessage('');
    });
    return new Stopwatch(echo);
  }

  /** Since the start. */
  get ms(): number {
    return performance.now() - this.startedAt;
  }

  /** What an operation that takes `ms` on an idle machine may take on this one. */
  allow(ms: number): number {
    return ms + STEPS * this.#lateness();
  }

  /** Of the latest sample, the one under way included. */
  #lateness(): number {
    return Math.max(this.#latestMs, performance.now() - this.#dueAt);
  }

  #sample(): void {
    this.#dueAt = performance.now() + SAMPLE_EVERY_MS;
    this.#timer = setTimeout(() => this.#echo.postMessage(''), SAMPLE_EVERY_MS);
  }
}
