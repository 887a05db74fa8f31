import type { ConnectionRegistry } from '../cluster/connection-registry.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Identity } from '../protocol/identity.ts';
import type { TokenState } from '../protocol/token-lifecycle.ts';
import type { Attachment } from './attachment.ts';

const TICK_MS = 1_000;
/**
 * A tick that is so far from when it was due tells of a clock that was set, or of a process that was stopped. Taken for
 * time that had passed, it would make all connections silent at once, or keep them from being asked for a sign of life.
 */
const CLOCK_JUMP_MS = 10_000;
/** A lease survives two renewals that fail. */
const RENEWALS_PER_LEASE = 3;

/** A connection as its hub sees it. */
export interface HubConnection {
  readonly connectionId: string;
  readonly endpoint: string;
  /** Only asked for once it has authenticated. */
  readonly identity: Identity;
  readonly attachment: Attachment | undefined;
  /** The time went on by so much, below 0 back, and nothing could be heard in it. */
  onClockJump(now: number, ms: number): void;
  tick(now: number): void;
  drain(retryAfterMs: number): void;
}

/** What a connection is counted under. */
interface Labels {
  readonly endpoint: string;
  readonly plan: string;
  readonly state: TokenState;
}

const NO_CONNECTION: Labels = { endpoint: '/ws', plan: 'free', state: 'active' };

/** The connections of this node: what is done to all of them, and nothing that one can do by itself. */
export class Hub {
  readonly #deps: { registry: ConnectionRegistry; clock: Clock; metrics: Metrics; logger: Logger };
  /** With the labels under which a connection is counted, once it is. */
  readonly #connections = new Map<HubConnection, Labels | undefined>();
  readonly #stops: (() => void)[];
  #renewing = false;
  #tickedAt: number;

  constructor(
    deps: { registry: ConnectionRegistry; clock: Clock; metrics: Metrics; logger: Logger },
    options: { readonly leaseMs: number },
  ) {
    this.#deps = deps;
    this.#tickedAt = deps.clock.now();
    // Nobody is here yet, which has to be told too: an autoscaler takes a node without the metric for a full one.
    deps.metrics.connections.inc(NO_CONNECTION, 0);
    this.#stops = [
      deps.clock.every(TICK_MS, () => this.#tick()),
      deps.clock.every(options.leaseMs / RENEWALS_PER_LEASE, () => void this.renew()),
    ];
  }

  /** Connections of this node, those included that have not authenticated yet. */
  get size(): number {
    return this.#connections.size;
  }

  add(connection: HubConnection): void {
    this.#connections.set(connection, undefined);
  }

  /** A connection that was added has authenticated. */
  authenticated(connection: HubConnection): void {
    const labels = labelsOf(connection);
    this.#connections.set(connection, labels);
    this.#deps.metrics.connections.inc(labels);
  }

  /** The plan or the state of a connection's token has changed, if it has joined. */
  changed(connection: HubConnection): void {
    const labels = this.#connections.get(connection);
    if (!labels) return;
    this.#deps.metrics.connections.dec(labels);
    this.authenticated(connection);
  }

  remove(connection: HubConnection): void {
    const labels = this.#connections.get(connection);
    this.#connections.delete(connection);
    if (labels) this.#deps.metrics.connections.dec(labels);
  }

  /** Renews every lease of this node; a round that outlasts the next one's time is not joined by it. */
  async renew(): Promise<void> {
    if (this.#renewing) return;
    this.#renewing = true;
    try {
      const byUser = this.#byUser();
      const ids = new Map([...byUser].map(([userId, list]) => [userId, list.map((one) => one.connectionId)]));
      for (const { userId, epoch, seq, leases } of await this.#deps.registry.renew(ids)) {
        for (const connection of byUser.get(userId) ?? []) {
          const state = leases.get(connection.connectionId);
          if (state) connection.attachment?.leaseRenewed(state, epoch, seq);
        }
      }
    } catch (error) {
      this.#deps.logger.warn({ err: error }, 'leases were not renewed; trying again');
    } finally {
      this.#renewing = false;
    }
  }

  /**
   * Sends every client elsewhere, evenly over `windowMs`, so that the other nodes do not meet them all at once.
   * Resolves when the last one has been told.
   */
  async drain(windowMs: number): Promise<void> {
    const connections = [...this.#connections.keys()];
    const gap = connections.length > 0 ? windowMs / connections.length : 0;
    await Promise.all(
      connections.map((connection, at) => {
        return new Promise<void>((resolve) => {
          this.#deps.clock.after(gap * at, () => {
            connection.drain(Math.round(Math.random() * windowMs));
            resolve();
          });
        });
      }),
    );
  }

  stop(): void {
    for (const stop of this.#stops) stop();
  }

  #tick(): void {
    const now = this.#deps.clock.now();
    const jump = now - this.#tickedAt - TICK_MS;
    this.#tickedAt = now;
    if (Math.abs(jump) >= CLOCK_JUMP_MS) {
      this.#deps.logger.warn({ leap_ms: jump }, 'the clock was set, or this process was stopped');
      for (const connection of this.#connections.keys()) connection.onClockJump(now, jump);
    }
    for (const connection of this.#connections.keys()) connection.tick(now);
  }

  #byUser(): Map<string, HubConnection[]> {
    const byUser = new Map<string, HubConnection[]>();
    for (const connection of this.#connections.keys()) {
      const userId = connection.attachment?.identity.userId;
      if (userId === undefined) continue;
      const list = byUser.get(userId);
      if (list) list.push(connection);
      else byUser.set(userId, [connection]);
    }
    return byUser;
  }
}

function labelsOf({ endpoint, identity, attachment }: HubConnection): Labels {
  return { endpoint, plan: identity.plan, state: attachment?.token.state ?? 'active' };
}
