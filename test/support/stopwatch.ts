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
parentPort.on('message', (sentAt) => parentPort.postMessage(sentAt));`;

/**
 * Measures elapsed time, and meanwhile how late a busy machine is: the round trip to an idle thread, every 20 ms. A bound
 * on elapsed time then holds on a machine of any load, and is as strict as it reads on an idle one.
 */
export class Stopwatch {
  readonly startedAt: number;
  readonly #echo: Worker;
  #slowestMs = 0;
  #sentAt: number | undefined;

  private constructor(echo: Worker) {
    this.#echo = echo;
    echo.on('message', (sentAt: number) => {
      this.#slowestMs = Math.max(this.#slowestMs, performance.now() - sentAt);
      this.#sentAt = undefined;
    });
    const timer = setInterval(() => this.#sample(), SAMPLE_EVERY_MS);
    closeAfter('test', async () => {
      clearInterval(timer);
      await echo.terminate();
    });
    this.startedAt = performance.now();
  }

  /** Begins when the thread answers; samples until the test ends. */
  static async start(): Promise<Stopwatch> {
    const echo = new Worker(ECHO, { eval: true });
    await new Promise((resolve) => {
      echo.once('message', resolve);
      echo.postMessage(0);
    });
    return new Stopwatch(echo);
  }

  /** Since the start. */
  get ms(): number {
    return performance.now() - this.startedAt;
  }

  /** What an operation that takes `ms` on an idle machine may take on this one. */
  allow(ms: number): number {
    const pendingMs = this.#sentAt === undefined ? 0 : performance.now() - this.#sentAt;
    return ms + STEPS * Math.max(this.#slowestMs, pendingMs);
  }

  #sample(): void {
    if (this.#sentAt !== undefined) return;
    this.#sentAt = performance.now();
    this.#echo.postMessage(this.#sentAt);
  }
}
