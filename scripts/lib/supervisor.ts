import { setTimeout as delay } from 'node:timers/promises';
import { describeExit, indent, type ManagedProcess, type Startable, whenReady } from './processes.ts';

export interface SupervisorOptions {
  /** Receives a sentence with what happened to the process and what follows. */
  readonly report: (text: string) => void;
  readonly restartDelayMs?: number;
  /** Exits within `windowMs` after which the supervisor stops restarting. */
  readonly maxDeaths?: number;
  readonly windowMs?: number;
}

/**
 * Keeps one process running.
 *
 *     idle → starting → running → (dies) → waiting → starting …
 *     any → stopped, by `stop` or `kill`; waiting → given up, after too many deaths in a short time
 *
 * The caller handles a failed first start. The supervisor restarts only a process that was ready once.
 */
export class Supervisor {
  readonly name: string;
  readonly #startable: Startable;
  readonly #report: (text: string) => void;
  readonly #restartDelayMs: number;
  readonly #maxDeaths: number;
  readonly #windowMs: number;
  readonly #stopping = new AbortController();
  readonly #deaths: number[] = [];
  #process: ManagedProcess | undefined;

  constructor(startable: Startable, options: SupervisorOptions) {
    this.name = startable.name;
    this.#startable = startable;
    this.#report = options.report;
    this.#restartDelayMs = options.restartDelayMs ?? 1_000;
    this.#maxDeaths = options.maxDeaths ?? 5;
    this.#windowMs = options.windowMs ?? 60_000;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Resolves when the process is ready for the first time. @throws UserError if it never is */
  async start(): Promise<void> {
    const child = await this.#launch();
    void this.#keepRunning(child);
  }

  /** Stops the process for good, after `graceMs` at the latest. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping.abort();
    await this.#process?.stop(graceMs);
  }

  /** Kills the process for good. */
  kill(): void {
    this.#stopping.abort();
    this.#process?.kill('SIGKILL');
  }

  async #launch(): Promise<ManagedProcess> {
    if (this.#stopping.signal.aborted) throw new Error(`${this.name} is being stopped`);
    const child = this.#startable.launch();
    this.#process = child;
    await whenReady(child, this.#startable);
    return child;
  }

  async #keepRunning(first: ManagedProcess): Promise<void> {
    let child: ManagedProcess | undefined = first;
    while (!this.#stopping.signal.aborted) {
      const how: string = child ? describeExit(await child.exited) : 'did not come back';
      if (this.#stopping.signal.aborted) return;
      if (this.#diesTooOften()) {
        const times = `${this.#maxDeaths} times within ${this.#windowMs / 1000} s`;
        this.#report(`${this.name} ${how}, ${times}: giving up on it. Stop everything (Ctrl-C) and start again.`);
        const output = this.#process?.output;
        if (output) this.#report(`The last output of ${this.name}:\n${indent(output)}`);
        return;
      }
      this.#report(`${this.name} ${how}; restarting it.`);
      child = await this.#restart();
    }
  }

  async #restart(): Promise<ManagedProcess | undefined> {
    try {
      await delay(this.#restartDelayMs, undefined, { signal: this.#stopping.signal });
      const child = await this.#launch();
      this.#report(`${this.name} is back (pid ${child.pid}).`);
      return child;
    } catch {
      // Stopped meanwhile, or the process ended before it was ready: the loop in `#keepRunning` decides what follows.
      return undefined;
    }
  }

  #diesTooOften(): boolean {
    const now = Date.now();
    this.#deaths.push(now);
    while (this.#deaths[0] !== undefined && this.#deaths[0] <= now - this.#windowMs) this.#deaths.shift();
    return this.#deaths.length >= this.#maxDeaths;
  }
}
