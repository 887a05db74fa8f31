import { Worker } from 'node:worker_threads';
import { closeAfter } from './open-resources.ts';

const SAMPLE_EVERY_MS = 20;
/**
 * Scheduling delays per operation: timers and sockets of the test, of a node and of Redis. Each is at most as long as
 * the slowest sample.
 */
const STEPS = 10;

/**
 * Echoes each message. As there is nothing else to do, the duration of an echo is the scheduling delay of the machine.
 */
const ECHO = `const { parentPort } = require('node:worker_threads');
parentPort.on('message', () => parentPort.postMessage(''));`;

/**
 * Returns the CPU time of this process over all threads, in milliseconds. Use it for work that computes in the test
 * process: its elapsed time depends on the load, and a `Stopwatch` would take it for lateness.
 */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

/**
 * Measures elapsed time and, every 20 ms, the scheduling delay of a busy machine by a round trip to an idle thread. A
 * bound on elapsed time thus holds under any load, and is exact on an idle machine.
 */
export class Stopwatch {
  readonly startedAt = performance.now();
  readonly #echo: Worker;
  #timer: NodeJS.Timeout | undefined;
  /** When the next sample would be answered without any delay. */
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

  /** Starts when the thread answers; samples until the test ends. */
  static async start(): Promise<Stopwatch> {
    const echo = new Worker(ECHO, { eval: true });
    await new Promise((resolve) => {
      echo.once('message', resolve);
      echo.postMessage('');
    });
    return new Stopwatch(echo);
  }

  /** Milliseconds since the start. */
  get ms(): number {
    return performance.now() - this.startedAt;
  }

  /** Returns the allowed duration on this machine for an operation that takes `ms` on an idle one. */
  allow(ms: number): number {
    return ms + STEPS * this.#lateness();
  }

  /** Of the latest sample, including an unanswered one. */
  #lateness(): number {
    return Math.max(this.#latestMs, performance.now() - this.#dueAt);
  }

  #sample(): void {
    this.#dueAt = performance.now() + SAMPLE_EVERY_MS;
    this.#timer = setTimeout(() => this.#echo.postMessage(''), SAMPLE_EVERY_MS);
  }
}
