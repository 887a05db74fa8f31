import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { Identity } from '../protocol/identity.ts';
import type { TokenState } from '../protocol/token-life.ts';
import type { Registry } from './registry.ts';
import type { Session } from './session.ts';

const TICK_MS = 1_000;
/**
 * A tick that is so far from when it was due tells of a clock that was set, or of a process that was stopped. Taken for
 * time that had passed, it would make all connections silent at once, or keep them from being asked for a sign of life.
 */
const LEAP_MS = 10_000;
/** A lease survives two renewals that fail. */
const RENEWALS_PER_LEASE = 3;

/** A connection as its hub sees it. */
export interface HubMember {
  readonly connectionId: string;
  readonly endpoint: string;
  /** Only asked for once it has authenticated. */
  readonly identity: Identity;
  readonly session: Session | undefined;
  /** The time went on by so much, below 0 back, and nothing could be heard in it. */
  leapt(now: number, ms: number): void;
  tick(now: number): void;
  drain(retryAfterMs: number): void;
}

/** What a connection is counted under. */
interface Labels {
  readonly endpoint: string;
  readonly plan: string;
  readonly state: TokenState;
}

const NOBODY: Labels = { endpoint: '/ws', plan: 'free', state: 'active' };

/** The connections of this node: what is done to all of them, and nothing that one can do by itself. */
export class Hub {
  readonly #deps: { registry: Registry; clock: Clock; metrics: Metrics; logger: Logger };
  /** With the labels under which a connection is counted, once it is. */
  readonly #connections = new Map<HubMember, Labels | undefined>();
  readonly #stops: (() => void)[];
  #renewing = false;
  #tickedAt: number;

  constructor(
    deps: { registry: Registry; clock: Clock; metrics: Metrics; logger: Logger },
    options: { readonly leaseMs: number },
  ) {
    this.#deps = deps;
    this.#tickedAt = deps.clock.now();
    // Nobody is here yet, which has to be told too: an autoscaler takes a node without the metric for a full one.
    deps.metrics.connections.inc(NOBODY, 0);
    this.#stops = [
      deps.clock.every(TICK_MS, () => this.#tick()),
      deps.clock.every(options.leaseMs / RENEWALS_PER_LEASE, () => void this.renew()),
    ];
  }

  /** Connections of this node, those included that have not authenticated yet. */
  get size(): number {
    return this.#connections.size;
  }

  add(connection: HubMember): void {
    this.#connections.set(connection, undefined);
  }

  /** A connection that was added has authenticated. */
  joined(connection: HubMember): void {
    const labels = labelsOf(connection);
    this.#connections.set(connection, labels);
    this.#deps.metrics.connections.inc(labels);
  }

  /** The plan or the state of a connection's token has changed, if it has joined. */
  changed(connection: HubMember): void {
    const labels = this.#connections.get(connection);
    if (!labels) return;
    this.#deps.metrics.connections.dec(labels);
    this.joined(connection);
  }

  remove(connection: HubMember): void {
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
          if (state) connection.session?.leaseRenewed(state, epoch, seq);
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
    const leap = now - this.#tickedAt - TICK_MS;
    this.#tickedAt = now;
    if (Math.abs(leap) >= LEAP_MS) {
      this.#deps.logger.warn({ leap_ms: leap }, 'the clock was set, or this process was stopped');
      for (const connection of this.#connections.keys()) connection.leapt(now, leap);
    }
    for (const connection of this.#connections.keys()) connection.tick(now);
  }

  #byUser(): Map<string, HubMember[]> {
    const byUser = new Map<string, HubMember[]>();
    for (const connection of this.#connections.keys()) {
      const userId = connection.session?.identity.userId;
      if (userId === undefined) continue;
      const list = byUser.get(userId);
      if (list) list.push(connection);
      else byUser.set(userId, [connection]);
    }
    return byUser;
  }
}

function labelsOf({ endpoint, identity, session }: HubMember): Labels {
  return { endpoint, plan: identity.plan, state: session?.token.state ?? 'active' };
}
