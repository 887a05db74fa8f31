import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { until } from '../../test/support/until.ts';

const LISTENING = /Debugger listening on (ws:\/\/\S+)/;
const CONNECT_MS = 10_000;

/** Lets the inspector of a process choose a free port when SIGUSR1 starts it. */
export const INSPECTOR_OPTIONS = '--inspect-port=127.0.0.1:0';

/** Finds the addresses of inspectors in the output of processes, by process name. */
export class Inspectors {
  readonly #urls = new Map<string, string>();
  /** Processes whose inspector runs: a second signal would not name its address again. */
  readonly #started = new Map<string, number>();

  read(name: string, line: string): void {
    const url = LISTENING.exec(line)?.[1];
    if (url !== undefined) this.#urls.set(name, url);
  }

  /**
   * Blocks the event loop of a process as a synchronous call does: its timers and sockets wait, while its other threads
   * and the kernel continue, so connections are accepted and their data is acknowledged.
   */
  async block(name: string, pid: number, forMs: number): Promise<void> {
    if (this.#started.get(name) !== pid) {
      this.#urls.delete(name);
      this.#started.set(name, pid);
      process.kill(pid, 'SIGUSR1');
    }
    const label = `the inspector of ${name}`;
    const url = await until(() => this.#urls.get(name), { timeoutMs: CONNECT_MS, label });
    const socket = new WebSocket(url);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('open', resolve);
        socket.once('error', reject);
      });
      const expression = `Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ${forMs})`;
      socket.on('error', () => {});
      socket.send(JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression } }));
      await delay(forMs);
    } finally {
      socket.close();
    }
  }
}
