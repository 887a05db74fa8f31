import type { ServerResponse } from 'node:http';
import type { ServiceIdentity } from '../auth/tokens.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { type ErrorCode, TollgateError } from '../protocol/errors.ts';
import type { AlertWatch } from './alerts.ts';
import type { AuditLog } from './audit-log.ts';
import { type ClusterFigures, overviewOf } from './cluster-figures.ts';

/** Consoles per node. Each costs one write of 2 KB in five seconds; the figures are read once for all. */
export const MAX_STREAMS = 32;
const TICK_MS = 5_000;
const FULL_RETRY_MS = 5_000;
/** Ticks that a reader can miss before its stream is closed: it is disconnected, or reads nothing. */
const MAX_MISSED = 12;

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  // Proxies must not store, compress or collect the stream. nginx reads the second header.
  'cache-control': 'no-store, no-transform',
  'x-accel-buffering': 'no',
  'x-content-type-options': 'nosniff',
};

interface Stream {
  readonly caller: ServiceIdentity;
  readonly response: ServerResponse;
  missed: number;
  /** Last alerts and audit entry that were sent. */
  alerts: string;
  audit: string;
}

export interface AdminStreamsDeps {
  readonly figures: Pick<ClusterFigures, 'read'>;
  readonly alerts: AlertWatch;
  readonly auditLog: Pick<AuditLog, 'latest'>;
  /** Returns the reason why a caller may no longer read; undefined if it may. */
  readonly recheck: (caller: ServiceIdentity) => Promise<ErrorCode | undefined>;
  readonly clock: Clock;
  readonly logger: Pick<Logger, 'debug'>;
}

/**
 * The server-sent streams of the consoles that are connected to this node. All of them share one timer and one read of
 * the figures. A reader that has not taken the previous data misses the next: the newest overview replaces the older
 * ones, so nothing is buffered for it.
 */
export class AdminStreams {
  readonly #deps: AdminStreamsDeps;
  readonly #streams = new Map<string, Stream>();
  #stopTimer: (() => void) | undefined;
  #isTicking = false;

  constructor(deps: AdminStreamsDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#streams.size;
  }

  /** @throws TollgateError OVERLOADED; then nothing has been written */
  admit({ serviceId }: ServiceIdentity): void {
    if (this.#streams.size < MAX_STREAMS || this.#streams.has(serviceId)) return;
    throw new TollgateError('OVERLOADED', { retryAfterMs: FULL_RETRY_MS });
  }

  /** Starts a stream. An earlier one of the same caller ends. */
  open(caller: ServiceIdentity, response: ServerResponse): void {
    const before = this.#streams.get(caller.serviceId);
    if (before) this.#end(before, 'CONNECTION_LIMIT_EXCEEDED');
    const stream: Stream = { caller, response, missed: 0, alerts: '', audit: '' };
    this.#streams.set(caller.serviceId, stream);
    response.on('error', () => response.destroy());
    response.once('close', () => this.#remove(stream));
    response.writeHead(200, HEADERS).write(': \n\n');
    this.#stopTimer ??= this.#deps.clock.every(TICK_MS, () => void this.#tick());
    void this.#tick(stream);
  }

  /** Ends all streams of a draining node. */
  close(): void {
    for (const stream of [...this.#streams.values()]) this.#end(stream, 'SERVER_DRAINING');
  }

  /** Sends the figures to one stream, or to all if no other tick is in progress. */
  async #tick(only?: Stream): Promise<void> {
    if (!only && this.#isTicking) return;
    if (!only) this.#isTicking = true;
    try {
      const [cluster, latest] = await Promise.all([this.#deps.figures.read(), this.#deps.auditLog.latest()]);
      const overview = JSON.stringify(overviewOf(cluster));
      const alerts = JSON.stringify({ alerts: this.#deps.alerts.look(cluster) });
      const audit = latest ? JSON.stringify(latest) : '';
      for (const stream of only ? [only] : [...this.#streams.values()]) {
        await this.#send(stream, { overview, alerts, audit });
      }
    } catch (error) {
      // While Redis is unavailable, the comment shows that this node is not.
      this.#deps.logger.debug({ err: error }, 'figures for the console could not be read');
      for (const { response } of this.#streams.values()) if (!response.writableNeedDrain) response.write(': \n\n');
    } finally {
      if (!only) this.#isTicking = false;
    }
  }

  async #send(stream: Stream, data: { readonly overview: string; readonly alerts: string; readonly audit: string }) {
    const { response, caller } = stream;
    if (response.writableNeedDrain) {
      stream.missed += 1;
      if (stream.missed > MAX_MISSED) response.destroy();
      return;
    }
    stream.missed = 0;
    const expired = this.#deps.clock.now() >= caller.tokenExpiresAt;
    const code = expired ? 'TOKEN_EXPIRED' : await this.#deps.recheck(caller);
    if (code !== undefined) return this.#end(stream, code);
    // The client may have disconnected meanwhile.
    if (response.destroyed || response.writableEnded) return;
    // The set of alerts is sent when it changes, their values with it.
    let text = event('overview', data.overview);
    if (data.alerts !== stream.alerts) text += event('alerts', data.alerts);
    if (data.audit !== '' && data.audit !== stream.audit) text += event('audit', data.audit);
    stream.alerts = data.alerts;
    stream.audit = data.audit;
    response.write(text);
  }

  #end(stream: Stream, code: ErrorCode): void {
    this.#remove(stream);
    if (!stream.response.writableEnded) stream.response.end(event('end', JSON.stringify({ code })));
  }

  #remove(stream: Stream): void {
    const { serviceId } = stream.caller;
    if (this.#streams.get(serviceId) === stream) this.#streams.delete(serviceId);
    if (this.#streams.size > 0) return;
    this.#stopTimer?.();
    this.#stopTimer = undefined;
  }
}

/** JSON has no line breaks, so the data is one line. */
function event(type: string, data: string): string {
  return `event: ${type}\ndata: ${data}\n\n`;
}
