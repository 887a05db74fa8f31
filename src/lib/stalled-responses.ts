import type { ServerResponse } from 'node:http';
import { socketProgress } from './socket-progress.ts';

const CHECK_EVERY_MS = 1_000;

/** When output of a response last left this process, and what had left by then. */
interface Progress {
  at: number;
  sent: string;
}

/**
 * Ends responses whose client reads none of the output for a time. Node has no such bound: its timeouts concern
 * requests only. An unread response would keep its memory and its socket, and count among the requests in flight.
 */
export class StalledResponses {
  readonly #stalledMs: number;
  readonly #onStalled: (response: ServerResponse) => void;
  readonly #open = new Map<ServerResponse, Progress>();
  #timer: NodeJS.Timeout | undefined;

  /** @param onStalled called before the connection is reset */
  constructor(stalledMs: number, onStalled: (response: ServerResponse) => void) {
    this.#stalledMs = stalledMs;
    this.#onStalled = onStalled;
  }

  /** Watches a response until it is closed. */
  watch(response: ServerResponse): void {
    this.#open.set(response, { at: performance.now(), sent: '' });
    response.once('close', () => this.#open.delete(response));
    this.#timer ??= setInterval(() => this.#check(), Math.min(CHECK_EVERY_MS, this.#stalledMs / 2)).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #check(): void {
    const now = performance.now();
    for (const [response, progress] of this.#open) {
      const { socket } = response;
      const sent = socketProgress(socket);
      if (!socket || socket.writableLength === 0 || sent !== progress.sent) {
        progress.at = now;
        progress.sent = sent;
      } else if (now - progress.at >= this.#stalledMs) {
        this.#open.delete(response);
        this.#onStalled(response);
        socket.resetAndDestroy();
      }
    }
  }
}
