import { signal } from '@preact/signals';
import { createParser } from 'eventsource-parser';
import { request, send } from './http.ts';
import type { Alert, AuditEntry, Overview } from './types.ts';

export type LiveState = 'connecting' | 'live' | 'polling' | 'offline';

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 15_000;
const POLL_MS = 5_000;

/**
 * The figures of the cluster as they change, over one server-sent stream. Another tab of the same operator ends the
 * stream of this one, which then asks every five seconds instead.
 */
export class LiveFigures {
  readonly state = signal<LiveState>('connecting');
  readonly overview = signal<Overview | undefined>(undefined);
  readonly alerts = signal<readonly Alert[] | undefined>(undefined);
  readonly lastAudit = signal<AuditEntry | undefined>(undefined);
  readonly error = signal<unknown>(undefined);
  readonly #closed = new AbortController();

  start(): () => void {
    void this.#run();
    return () => this.#closed.abort();
  }

  async #run(): Promise<void> {
    let delayMs = FIRST_RETRY_MS;
    while (!this.#closed.signal.aborted) {
      try {
        const code = await this.#read();
        delayMs = FIRST_RETRY_MS;
        if (code === 'CONNECTION_LIMIT_EXCEEDED') return await this.#poll();
      } catch (error) {
        if (this.#closed.signal.aborted) return;
        this.error.value = error;
        this.state.value = 'offline';
      }
      await this.#pause(Math.random() * delayMs);
      delayMs = Math.min(delayMs * 2, MAX_RETRY_MS);
    }
  }

  /** @returns the code with which the gateway ended the stream */
  async #read(): Promise<string | undefined> {
    const response = await send('/v1/admin/stream', {
      signal: this.#closed.signal,
      headers: { accept: 'text/event-stream' },
    });
    let code: string | undefined;
    const parser = createParser({
      onEvent: ({ event, data }) => {
        if (event === 'end') code = (JSON.parse(data) as { code: string }).code;
        else this.#receive(event, data);
      },
    });
    const decoder = new TextDecoder();
    for await (const bytes of response.body ?? []) parser.feed(decoder.decode(bytes, { stream: true }));
    return code;
  }

  #receive(event: string | undefined, data: string): void {
    if (event === 'overview') this.overview.value = JSON.parse(data) as Overview;
    else if (event === 'alerts') this.alerts.value = (JSON.parse(data) as { alerts: Alert[] }).alerts;
    else if (event === 'audit') this.lastAudit.value = JSON.parse(data) as AuditEntry;
    else return;
    this.state.value = 'live';
    this.error.value = undefined;
  }

  async #poll(): Promise<void> {
    this.state.value = 'polling';
    while (!this.#closed.signal.aborted) {
      try {
        const { signal } = this.#closed;
        this.overview.value = await request<Overview>('/v1/admin/overview', { signal });
        this.alerts.value = (await request<{ alerts: Alert[] }>('/v1/admin/alerts', { signal })).alerts;
        this.error.value = undefined;
      } catch (error) {
        if (this.#closed.signal.aborted) return;
        this.error.value = error;
      }
      await this.#pause(POLL_MS);
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#closed.signal.addEventListener(
        'abort',
        () => {
          clearTimeout(timer);
          resolve();
        },
        { once: true },
      );
    });
  }
}
