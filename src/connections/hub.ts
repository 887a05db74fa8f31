import type { ConnectionRegistry } from '../cluster/connection-registry.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import type { TokenState } from '../protocol/token-lifecycle.ts';
import { partitionOf } from '../redis/keys.ts';
import type { Connection } from './connection.ts';

const TICK_MS = 1_000;
/**
 * A tick that deviates this much from its due time means that the clock was set or the process was suspended. Counted
 * as elapsed time, the jump would end all connections by idle timeout at once, or delay their heartbeats.
 */
const CLOCK_JUMP_MS = 10_000;
/**
 * Maximum delay that a drain requests of a client. The drain already spreads the clients over its window; this delay
 * only spreads those that a busy node sends away at the same moment.
 */
const RECONNECT_WITHIN_MS = 1_000;
/** A lease survives two failed renewals. */
const RENEWALS_PER_LEASE = 3;
/**
 * Renewals are spread over their interval, so that neither Redis nor the event loop is busy with those of all users at
 * once. A user's partition determines the slice, so the time between two renewals stays the same.
 */
const RENEWAL_SLICE_MS = 250;

/** Labels of the connection gauge. */
interface Labels {
  readonly endpoint: string;
  readonly plan: string;
  readonly state: TokenState;
}

/** An authenticated connection. */
interface Entry {
  /** The labels under which the gauge counts it. */
  readonly labels: Labels;
  readonly userId: string;
  readonly slice: number;
}

const MAX_LABELS = 1_000;

const NO_CONNECTION: Labels = { endpoint: '/ws', plan: 'free', state: 'active' };

/** The set of connections of this node. Runs their timers, renews their leases and drains them. */
export class Hub {
  readonly #deps: { registry: ConnectionRegistry; clock: Clock; metrics: Metrics; logger: Logger };
  /** The value is undefined before authentication. */
  readonly #connections = new Map<Connection, Entry | undefined>();
  readonly #stops: (() => void)[];
  readonly #finishing = new Set<Promise<void>>();
  readonly #slices: number;
  #nextSlice = 0;
  readonly #renewing = new Set<number>();
  /** The labels in use, by their text: connections with the same labels share one object. */
  readonly #labels = new Map<string, Labels>();
  #tickedAt: number;

  constructor(
    deps: { registry: ConnectionRegistry; clock: Clock; metrics: Metrics; logger: Logger },
    options: { readonly leaseMs: number },
  ) {
    this.#deps = deps;
    const renewalMs = options.leaseMs / RENEWALS_PER_LEASE;
    this.#slices = Math.max(1, Math.floor(renewalMs / RENEWAL_SLICE_MS));
    this.#tickedAt = deps.clock.now();
    // Exports an explicit 0, because an autoscaler treats a node without the metric as full.
    deps.metrics.connections.inc(NO_CONNECTION, 0);
    this.#stops = [
      deps.clock.every(TICK_MS, () => this.#tick()),
      deps.clock.every(renewalMs / this.#slices, () => void this.renewSlice()),
    ];
  }

  /** Number of connections of this node, including unauthenticated ones. */
  get size(): number {
    return this.#connections.size;
  }

  /**
   * Records a connection that was created, authenticated, or changed in plan or token state, and removes one whose
   * socket has closed.
   */
  update(connection: Connection): void {
    const before = this.#connections.get(connection);
    if (before) this.#deps.metrics.connections.dec(before.labels);
    if (connection.disconnected) {
      this.#connections.delete(connection);
      return;
    }
    const entry = this.#entryOf(connection, before);
    this.#connections.set(connection, entry);
    if (entry) this.#deps.metrics.connections.inc(entry.labels);
  }

  /** Lets `drain` wait for messages that a disconnected client sent before. @param handled never rejects */
  finishing(handled: Promise<void>): void {
    this.#finishing.add(handled);
    void handled.then(() => this.#finishing.delete(handled));
  }

  /** Renews the leases of the users of the next slice. Does nothing while its last renewal is still running. */
  async renewSlice(): Promise<void> {
    const slice = this.#nextSlice;
    this.#nextSlice = (slice + 1) % this.#slices;
    if (this.#renewing.has(slice)) return;
    this.#renewing.add(slice);
    try {
      const byUser = this.#byUser(slice);
      const ids = new Map([...byUser].map(([userId, list]) => [userId, list.map((one) => one.connectionId)]));
      for (const { userId, epoch, seq, leases } of await this.#deps.registry.renew(ids)) {
        for (const connection of byUser.get(userId) ?? []) {
          const state = leases.get(connection.connectionId);
          if (state) connection.attachment?.leaseRenewed(state, epoch, seq);
        }
      }
    } catch (error) {
      this.#deps.logger.warn({ err: error }, 'lease renewal failed, retrying');
    } finally {
      this.#renewing.delete(slice);
    }
  }

  /**
   * Asks every client to reconnect elsewhere, one after the other and evenly over `windowMs`, so that the other nodes
   * do not receive all clients at once. A client is away for at most `RECONNECT_WITHIN_MS` plus the time to reconnect.
   * Resolves when the last connection is closed, and its messages are handled.
   */
  async drain(windowMs: number): Promise<void> {
    const connections = [...this.#connections.keys()];
    const gap = connections.length > 0 ? windowMs / connections.length : 0;
    await Promise.all(
      connections.map((connection, at) => {
        return new Promise<void>((resolve) => {
          this.#deps.clock.after(gap * at, () => {
            sendAway(connection);
            resolve();
          });
        });
      }),
    );
    // Handshakes that had begun before the node refused new ones.
    for (const connection of [...this.#connections.keys()]) sendAway(connection);
    await Promise.all(this.#finishing);
  }

  stop(): void {
    for (const stop of this.#stops) stop();
  }

  #tick(): void {
    const now = this.#deps.clock.now();
    const jump = now - this.#tickedAt - TICK_MS;
    this.#tickedAt = now;
    if (Math.abs(jump) >= CLOCK_JUMP_MS) {
      this.#deps.logger.warn({ leap_ms: jump }, 'the clock was set or the process was suspended');
      for (const connection of this.#connections.keys()) connection.onClockJump(now, jump);
    }
    for (const connection of this.#connections.keys()) connection.tick(now);
  }

  #byUser(slice: number): Map<string, Connection[]> {
    const byUser = new Map<string, Connection[]>();
    for (const [connection, entry] of this.#connections) {
      if (entry?.slice !== slice) continue;
      const list = byUser.get(entry.userId);
      if (list) list.push(connection);
      else byUser.set(entry.userId, [connection]);
    }
    return byUser;
  }

  #labelsOf(labels: Labels): Labels {
    const name = `${labels.endpoint} ${labels.plan} ${labels.state}`;
    const known = this.#labels.get(name);
    if (known) return known;
    // Endpoints, states and the plans of the catalogue are few; catalogues that change often start over.
    if (this.#labels.size >= MAX_LABELS) this.#labels.clear();
    this.#labels.set(name, labels);
    return labels;
  }

  #entryOf({ endpoint, attachment }: Connection, before: Entry | undefined): Entry | undefined {
    if (!attachment) return undefined;
    const { plan, userId } = attachment.identity;
    const labels = this.#labelsOf({ endpoint, plan, state: attachment.token.state });
    return { labels, userId, slice: before?.slice ?? partitionOf(userId) % this.#slices };
  }
}

function sendAway(connection: Connection): void {
  connection.drain(Math.round(Math.random() * RECONNECT_WITHIN_MS));
}
