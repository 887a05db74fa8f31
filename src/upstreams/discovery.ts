import type { Client, RequestOptions } from '@modelcontextprotocol/client';
import type { ToolServer } from '../catalogue/tool-servers.ts';
import { type Clock, sleep } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { NO_CAPABILITIES, readCapabilities, type UpstreamCapabilities } from './capabilities.ts';
import { resultOf, UpstreamFault } from './faults.ts';
import { LIST_METHODS, type OmittedRow } from './rows.ts';
import type { Schemas } from './schemas.ts';

/** Interval at which the lists are read, also without a change notification. */
const REFRESH_MS = 60_000;
/** Minimum time between two readings, regardless of the number of change notifications. */
const LEAST_BETWEEN_MS = 1_000;
/** Delay after a failed reading: starts with `first` and doubles up to `last`. */
const RETRY_MS = { first: 1_000, last: 15_000 };
/** Maximum number of rows that are kept as omitted while lists are received. */
const MAX_OMITTED = 1_000;

export interface DiscoveryDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Pick<Metrics, 'upstreamOmitted'>;
  readonly schemas: Schemas;
}

export interface DiscoveryOptions {
  /** Aborts when the upstream is closed. */
  readonly stop: AbortSignal;
  /** Sends a request to the server within its bounds. */
  readonly request: <T>(work: (client: Client, options: RequestOptions) => Promise<T>) => Promise<T>;
}

/** State of the readings of one server. */
export interface DiscoveryStatus {
  /** `pending`: no list has been read yet. `failing`: the latest reading failed; what was read before is offered. */
  readonly state: 'pending' | 'ready' | 'failing';
  /** Problem of the latest reading, without text of the server. */
  readonly problem: string | undefined;
  /** Milliseconds since the epoch of the latest successful reading. */
  readonly readAt: number | undefined;
}

/**
 * Keeps the capabilities of one server current: reads its lists at the start, after each change that the server
 * reports, and every `REFRESH_MS`; after a failure, by `RETRY_MS`. While the server is unavailable, the capabilities of
 * the latest successful reading remain.
 */
export class Discovery {
  readonly #deps: DiscoveryDeps;
  readonly #server: ToolServer;
  readonly #options: DiscoveryOptions;
  #capabilities: UpstreamCapabilities = NO_CAPABILITIES;
  /** Rows that were left out since the latest reading began. */
  #omitted: OmittedRow[] = [];
  #status: DiscoveryStatus = { state: 'pending', problem: undefined, readAt: undefined };
  /** Aborts when the lists may have changed. */
  #change = new AbortController();
  #ended: Promise<void> = Promise.resolve();

  constructor(deps: DiscoveryDeps, server: ToolServer, options: DiscoveryOptions) {
    this.#deps = deps;
    this.#server = server;
    this.#options = options;
  }

  /** Result of the latest successful reading. */
  get capabilities(): UpstreamCapabilities {
    return this.#capabilities;
  }

  get status(): DiscoveryStatus {
    return this.#status;
  }

  /** Resolves when no reading follows, after `stop`. Never rejects. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Reads until `stop`. Call it once. */
  start(): void {
    this.#ended = this.#keepCurrent();
  }

  /** The server reports a changed list, or the connection that reports changes has ended. */
  onChange(): void {
    this.#change.abort();
  }

  /** A row was left out while the lists were received. */
  onOmitted(row: OmittedRow): void {
    if (this.#omitted.length < MAX_OMITTED) this.#omitted.push(row);
  }

  async #keepCurrent(): Promise<void> {
    const { clock } = this.#deps;
    const { stop } = this.#options;
    for (let failures = 0; !stop.aborted; ) {
      this.#change = new AbortController();
      failures = (await this.#read()) && this.capabilities.complete ? 0 : failures + 1;
      const waitMs = failures === 0 ? REFRESH_MS : Math.min(RETRY_MS.first * 2 ** (failures - 1), RETRY_MS.last);
      await sleep(clock, LEAST_BETWEEN_MS, stop);
      await sleep(clock, waitMs - LEAST_BETWEEN_MS, AbortSignal.any([stop, this.#change.signal]));
    }
  }

  async #read(): Promise<boolean> {
    const { logger, schemas, clock } = this.#deps;
    const server = this.#server.name;
    try {
      const before = this.#capabilities;
      this.#capabilities = await this.#options.request((client, options) => {
        this.#omitted = [];
        const reading = { server: this.#server, before, options };
        return readCapabilities(client, reading, { schemas, received: () => this.#omitted });
      });
      this.#report(before.omitted);
      this.#status = { state: 'ready', problem: undefined, readAt: clock.now() };
      return true;
    } catch (error) {
      if (this.#options.stop.aborted) return false;
      const problem = error instanceof UpstreamFault ? error.message : resultOf(error);
      this.#status = { ...this.#status, state: 'failing', problem };
      logger.warn({ server, err: error }, 'reading upstream capabilities failed, retrying');
      return false;
    }
  }

  /** Logs each entry that is left out now and was not before, and sets the metric. */
  #report(before: readonly OmittedRow[]): void {
    const { logger, metrics } = this.#deps;
    const server = this.#server.name;
    const { omitted } = this.#capabilities;
    const keyOf = ({ list, name, reason }: OmittedRow) => `${list} ${name} ${reason}`;
    const reported = new Set(before.map(keyOf));
    for (const row of omitted) {
      const { list, name: entry, reason } = row;
      if (!reported.has(keyOf(row))) logger.warn({ server, list, entry, reason }, 'upstream entry omitted');
    }
    for (const list of LIST_METHODS) {
      metrics.upstreamOmitted.set({ server, list }, omitted.filter((row) => row.list === list).length);
    }
  }
}
