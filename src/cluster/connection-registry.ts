import type { Plans } from '../catalogue/plans.ts';
import { LOG_STATE_SECONDS } from '../events/event-log.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import type { Keys } from '../redis/keys.ts';
import { LuaScript, type ScriptReply } from '../redis/scripts.ts';

const admitConnection = LuaScript.load('admitConnection-5');
const renewLeases = LuaScript.load('renewLeases-4');
const releaseConnections = LuaScript.load('releaseConnections-3');
const enforceCap = LuaScript.load('enforceCap-4');
const closeConnections = LuaScript.load('closeConnections-3');
const listConnections = LuaScript.load('listConnections-2');

/** Connections of one user that are listed or closed at once. */
export const LISTED_CONNECTIONS = 1_000;
/** Scripts sent at once when leases are renewed: bounds the reply of one round trip. */
const RENEW_BATCH = 200;

export interface ConnectionDetails {
  readonly node: string;
  readonly endpoint: string;
  readonly opened_at: string;
}

export interface Admission {
  /** What an operator stored, which wins over the token; undefined when nobody did. */
  readonly storedPlan: string | undefined;
  /** Place in the order of admission; a connection that lost its lease to an outage takes it again. */
  readonly order: number;
  /** The event log's epoch and last `seq` at the moment of admission. */
  readonly epoch: string;
  readonly seq: number;
  /** Tokens of the user that were issued before this are revoked; milliseconds since the epoch, 0 for none. */
  readonly revokedBefore: number;
}

export interface AdmissionRequest {
  readonly userId: string;
  readonly connectionId: string;
  readonly plan: string;
  /** Milliseconds since the epoch. */
  readonly tokenIssuedAt: number;
  readonly details: ConnectionDetails;
  /** Where it stood before, when it is admitted again. */
  readonly order?: number;
}

export type LeaseState = 'renewed' | 'evicted' | 'closed' | 'missing';

/** A live connection as the registry knows it, whichever node holds it. */
export interface ListedConnection extends Partial<ConnectionDetails> {
  readonly connection_id: string;
  readonly lease_ends_at: string;
}

/** The outcome of renewing one user's leases, with the head of the user's log as of then. */
export interface Renewal {
  readonly userId: string;
  readonly epoch: string;
  readonly seq: number;
  readonly leases: ReadonlyMap<string, LeaseState>;
}

/**
 * The connections of the whole cluster, as leases in Redis. A place is held while it is renewed: whatever dies gives
 * its places back by itself, so there is nothing to count wrong and nothing to repair.
 */
export class ConnectionRegistry {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #leaseMs: number;
  readonly #plans: Plans;
  readonly #maxConnectionsPerUser: number;

  constructor(
    { redis, keys, plans }: { redis: Redis; keys: Keys; plans: Plans },
    options: { readonly leaseMs: number; readonly maxConnectionsPerUser: number },
  ) {
    this.#redis = redis;
    this.#keys = keys;
    this.#leaseMs = options.leaseMs;
    this.#plans = plans;
    this.#maxConnectionsPerUser = options.maxConnectionsPerUser;
    // Pipelines know the scripts that exist when they are made.
  }

  /**
   * Gives a connection its place and closes the oldest beyond the cap, in one round trip.
   * @throws TollgateError USER_BLOCKED, TOKEN_REVOKED for a token issued before the user's were revoked; Error when Redis
   * is away
   */
  async admit(request: AdmissionRequest): Promise<Admission> {
    const { userId, connectionId, plan, tokenIssuedAt, details, order } = request;
    const keys = this.#keys.user(userId);
    const reply = (await admitConnection.run(
      this.#redis,
      [keys.leases, keys.connections, keys.evicted, keys.logState, keys.account],
      [
        connectionId,
        JSON.stringify(details),
        order ?? '',
        this.#leaseMs,
        keys.channel,
        LOG_STATE_SECONDS,
        plan,
        tokenIssuedAt,
        keys.nodeChannel(''),
        ...this.#caps(),
      ],
    )) as ['blocked'] | ['revoked'] | ['admitted', number, string, string, number, number];
    if (reply[0] === 'blocked') throw new TollgateError('USER_BLOCKED');
    if (reply[0] === 'revoked') throw new TollgateError('TOKEN_REVOKED');
    const [, admittedOrder, storedPlan, epoch, seq, revokedBefore] = reply;
    return { order: admittedOrder, storedPlan: storedPlan || undefined, epoch, seq, revokedBefore };
  }

  /**
   * Renews the leases of this node, a batch a round trip. Users whose renewal failed are left out: their leases last
   * until the next one.
   */
  async renew(connectionsByUser: ReadonlyMap<string, readonly string[]>): Promise<Renewal[]> {
    const users = [...connectionsByUser];
    const renewals: Renewal[] = [];
    for (let from = 0; from < users.length; from += RENEW_BATCH) {
      renewals.push(...(await this.#renewBatch(users.slice(from, from + RENEW_BATCH))));
    }
    return renewals;
  }

  async #renewBatch(users: readonly (readonly [string, readonly string[]])[]): Promise<Renewal[]> {
    // Sent together; a pipeline would have to stay on one shard.
    const replies = await Promise.allSettled(
      users.map(([userId, ids]) => {
        const keys = this.#keys.user(userId);
        const used = [keys.leases, keys.connections, keys.evicted, keys.logState];
        return renewLeases.run(this.#redis, used, [this.#leaseMs, ...ids]);
      }),
    );
    return users.flatMap(([userId, ids], at) => {
      const renewed = replies[at];
      if (renewed?.status !== 'fulfilled') return [];
      const [epoch, seq, ...states] = renewed.value as [string, number, ...ScriptReply[]];
      return [{ userId, epoch, seq, leases: new Map(ids.map((id, i) => [id, states[i] as LeaseState])) }];
    });
  }

  /** Gives places back at once. A failure is harmless: the leases end by themselves. */
  async release(userId: string, connectionIds: readonly string[]): Promise<void> {
    const keys = this.#keys.user(userId);
    await releaseConnections.run(this.#redis, [keys.leases, keys.connections, keys.evicted], connectionIds);
  }

  /**
   * Closes the oldest connections of a user beyond the cap of the stored plan, wherever they are.
   * @throws TollgateError OVERLOADED while Redis is away
   */
  async enforceCap(userId: string): Promise<void> {
    const keys = this.#keys.user(userId);
    const used = [keys.leases, keys.connections, keys.evicted, keys.account];
    await enforceCap.run(this.#redis, used, [this.#leaseMs, keys.channel, keys.nodeChannel(''), ...this.#caps()]);
  }

  /**
   * Closes connections of a user, wherever they are. @throws TollgateError OVERLOADED while Redis is away
   * @param connectionIds undefined for all, `LISTED_CONNECTIONS` at most
   * @returns those that were live
   */
  async close(userId: string, connectionIds?: readonly string[]): Promise<string[]> {
    const keys = this.#keys.user(userId);
    const args = [this.#leaseMs, keys.channel, LISTED_CONNECTIONS, ...(connectionIds ?? [])];
    return (await closeConnections.run(this.#redis, [keys.leases, keys.connections, keys.evicted], args)) as string[];
  }

  /**
   * The live connections of a user, `LISTED_CONNECTIONS` at most, and how many there are.
   * @throws TollgateError OVERLOADED while Redis is away
   */
  async list(userId: string): Promise<{ total: number; connections: ListedConnection[] }> {
    const keys = this.#keys.user(userId);
    const reply = await listConnections.run(this.#redis, [keys.leases, keys.connections], [LISTED_CONNECTIONS]);
    const [total, ...rows] = reply as [number, ...(string | number)[]];
    const connections = Array.from({ length: rows.length / 3 }, (_, at) => {
      const [id, endsAt, details] = rows.slice(3 * at) as [string, number, string];
      const lease_ends_at = new Date(Number(endsAt)).toISOString();
      return { connection_id: id, ...(JSON.parse(details) as ConnectionDetails), lease_ends_at };
    });
    return { total, connections };
  }

  /** The default cap first, then that of each plan, as the plans are now. */
  #caps(): (string | number)[] {
    const fallback = this.#maxConnectionsPerUser;
    return ['', fallback, ...this.#plans.all.flatMap(({ name, connections }) => [name, connections ?? fallback])];
  }
}
