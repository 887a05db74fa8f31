import type { Plans } from '../catalogue/plans.ts';
import { LOG_STATE_SECONDS } from '../events/event-log.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { Redis } from '../redis/client.ts';
import { RedisUnavailable } from '../redis/errors.ts';
import { type Keys, partitionOf } from '../redis/keys.ts';
import { anything, integer, list, literal, oneOf, text, tuple } from '../redis/replies.ts';
import { LuaScript } from '../redis/scripts.ts';
import type { SessionEntry, TokenRegistration } from '../redis/token-registration.ts';
import type { UserKeys } from '../redis/user-keys.ts';

const admitConnection = LuaScript.load(
  'admitConnection-9',
  oneOf(
    tuple([literal('admitted'), integer, text, text, integer, integer, list(anything)]),
    tuple([literal('blocked', 'revoked')]),
  ),
);
const renewLeases = LuaScript.load(
  'renewLeases-n',
  list(tuple([text, integer], literal('renewed', 'evicted', 'closed', 'missing'))),
);
const releaseConnections = LuaScript.load('releaseConnections-6', integer);
const enforceCap = LuaScript.load('enforceCap-4', integer);
const closeConnections = LuaScript.load('closeConnections-3', list(text));
const listConnections = LuaScript.load('listConnections-2', tuple([integer], tuple([text, integer, text])));

/** Connections of one user that are listed or closed at once. */
export const LISTED_CONNECTIONS = 1_000;
/** Users whose leases are renewed at once; bounds the replies of one round trip. */
const RENEW_BATCH = 200;
/** Users per script: at some 10 µs each, Redis serves other clients after a third of a millisecond. */
const RENEWED_PER_SCRIPT = 32;

export interface ConnectionDetails {
  readonly node: string;
  readonly endpoint: string;
  readonly opened_at: string;
  /** Plan of the token at the admission. */
  readonly plan?: string;
  /** E-mail address of the token at the admission. */
  readonly email?: string;
  /** Session of the token at the admission. */
  readonly session_id?: string;
  /** Stream that the connection carries. A later connection of the user with the same stream replaces this one. */
  readonly stream?: string;
}

export interface Admission {
  /** Plan that an administrator stored, which overrides the token's plan; undefined when none is stored. */
  readonly storedPlan: string | undefined;
  /** Admission order; a connection whose lease expired in an outage is readmitted with the same order. */
  readonly order: number;
  /** Log epoch and last `seq` of the event log at admission. */
  readonly epoch: string;
  readonly seq: number;
  /** Tokens of the user that were issued before this time are revoked; milliseconds since the epoch, 0 for none. */
  readonly revokedBefore: number;
  /** Reply to the registration of the token, for `TokenSessions.registered`; empty without one. */
  readonly registered: readonly unknown[];
}

export interface AdmissionRequest {
  readonly userId: string;
  readonly connectionId: string;
  readonly plan: string;
  /** Milliseconds since the epoch. */
  readonly tokenIssuedAt: number;
  readonly details: ConnectionDetails;
  /** Undefined for a token that is not refreshed. */
  readonly token?: TokenRegistration | undefined;
  /** The earlier admission order, for a readmission. */
  readonly order?: number;
}

export type LeaseState = 'renewed' | 'evicted' | 'closed' | 'missing';

/** A live connection of any node, as the registry stores it. */
export interface ListedConnection extends Partial<ConnectionDetails> {
  readonly connection_id: string;
  readonly lease_ends_at: string;
}

/** Result of renewing one user's leases, with the head of the user's event log at that time. */
export interface Renewal {
  readonly userId: string;
  readonly epoch: string;
  readonly seq: number;
  readonly leases: ReadonlyMap<string, LeaseState>;
}

type ConnectionsOfUser = readonly [userId: string, connectionIds: readonly string[]];

export interface ConnectionRegistryDeps {
  readonly redis: Redis;
  readonly keys: Keys;
  readonly plans: Plans;
}

export interface ConnectionRegistryOptions {
  readonly leaseMs: number;
  /** Connection cap of plans without one of their own. */
  readonly maxConnectionsPerUser: number;
}

/**
 * Leases of all connections of the cluster, in Redis. A lease expires unless its node renews it, so a crashed node
 * needs no cleanup and no counter can drift.
 */
export class ConnectionRegistry {
  readonly #deps: ConnectionRegistryDeps;
  readonly #options: ConnectionRegistryOptions;

  constructor(deps: ConnectionRegistryDeps, options: ConnectionRegistryOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Grants a connection its lease, registers its token and evicts the oldest connections above the connection cap, in
   * one round trip.
   * @throws TollgateError USER_BLOCKED, TOKEN_REVOKED for a token issued before the user's revocation time; Error while
   *   Redis is unavailable
   */
  async admit(request: AdmissionRequest): Promise<Admission> {
    const { userId, connectionId, plan, tokenIssuedAt, details, token, order } = request;
    const keys = this.#deps.keys.user(userId);
    const reply = await admitConnection.run(
      this.#deps.redis,
      [
        keys.leases,
        keys.connections,
        keys.evicted,
        keys.logState,
        keys.account,
        ...tokenKeys(keys, token),
        keys.usedRefreshTokens,
      ],
      [
        connectionId,
        JSON.stringify(details),
        order ?? '',
        this.#options.leaseMs,
        keys.channel,
        LOG_STATE_SECONDS,
        plan,
        tokenIssuedAt,
        keys.nodeChannel(''),
        details.stream ?? '',
        ...(token ? [token.sealed, token.member, ...token.args] : NO_TOKEN),
        ...this.#caps(),
      ],
    );
    if (reply[0] !== 'admitted') throw new TollgateError(reply[0] === 'blocked' ? 'USER_BLOCKED' : 'TOKEN_REVOKED');
    const [, admittedOrder, storedPlan, epoch, seq, revokedBefore, registered] = reply;
    return { order: admittedOrder, storedPlan: storedPlan || undefined, epoch, seq, revokedBefore, registered };
  }

  /**
   * Renews the leases of this node, one batch per round trip. The result omits users whose renewal failed; their leases
   * last until the next renewal.
   */
  async renew(connectionsByUser: ReadonlyMap<string, readonly string[]>): Promise<Renewal[]> {
    const users = [...connectionsByUser];
    const renewals: Renewal[] = [];
    for (let from = 0; from < users.length; from += RENEW_BATCH) {
      renewals.push(...(await this.#renewBatch(users.slice(from, from + RENEW_BATCH))));
    }
    return renewals;
  }

  /** Sends one script per partition, because the keys of a script must be in one slot of a Redis Cluster. */
  async #renewBatch(users: readonly ConnectionsOfUser[]): Promise<Renewal[]> {
    const byPartition = Map.groupBy(users, ([userId]) => partitionOf(userId)).values();
    const groups = [...byPartition].flatMap((group) => inChunks(group, RENEWED_PER_SCRIPT));
    const renewed = await Promise.all(groups.map((group) => this.#renewTogether(group)));
    return renewed.flat();
  }

  /** If the script fails, renews each user alone: damaged data of one user must not end the leases of others. */
  async #renewTogether(users: readonly ConnectionsOfUser[]): Promise<Renewal[]> {
    try {
      return await this.#renew(users);
    } catch (error) {
      if (users.length === 1 || error instanceof RedisUnavailable) return [];
      const alone = await Promise.all(users.map((user) => this.#renewTogether([user])));
      return alone.flat();
    }
  }

  async #renew(users: readonly ConnectionsOfUser[]): Promise<Renewal[]> {
    const used = users.flatMap(([userId]) => {
      const keys = this.#deps.keys.user(userId);
      return [keys.leases, keys.connections, keys.evicted, keys.logState];
    });
    const args = users.flatMap(([, ids]) => [ids.length, ...ids]);
    const replies = await renewLeases.run(this.#deps.redis, used, [this.#options.leaseMs, ...args]);
    return users.flatMap(([userId, ids], at) => {
      const [epoch, seq, ...states] = replies[at] ?? [];
      if (epoch === undefined || seq === undefined) return [];
      return [{ userId, epoch, seq, leases: new Map(ids.map((id, i) => [id, states[i] ?? 'missing'])) }];
    });
  }

  /**
   * Releases leases at once. A failure is harmless, because the leases expire, and the next refresh removes the token.
   * @param token session entry of the token of the first connection; undefined if it has none
   */
  async release(userId: string, connectionIds: readonly string[], token?: SessionEntry): Promise<void> {
    const keys = this.#deps.keys.user(userId);
    await releaseConnections.run(
      this.#deps.redis,
      [keys.leases, keys.connections, keys.evicted, ...tokenKeys(keys, token)],
      [token?.member ?? '', ...connectionIds],
    );
  }

  /**
   * Evicts the oldest connections of a user above the cap of the stored plan, on any node.
   * @throws RedisUnavailable
   */
  async enforceCap(userId: string): Promise<void> {
    const keys = this.#deps.keys.user(userId);
    const used = [keys.leases, keys.connections, keys.evicted, keys.account];
    await enforceCap.run(this.#deps.redis, used, [
      this.#options.leaseMs,
      keys.channel,
      keys.nodeChannel(''),
      ...this.#caps(),
    ]);
  }

  /**
   * Closes connections of a user on any node.
   * @param connectionIds undefined for all connections, at most `LISTED_CONNECTIONS`
   * @returns the ids of those that were live
   * @throws RedisUnavailable
   */
  async close(userId: string, connectionIds?: readonly string[]): Promise<string[]> {
    const keys = this.#deps.keys.user(userId);
    const args = [this.#options.leaseMs, keys.channel, LISTED_CONNECTIONS, ...(connectionIds ?? [])];
    return closeConnections.run(this.#deps.redis, [keys.leases, keys.connections, keys.evicted], args);
  }

  /**
   * Lists the live connections of a user, at most `LISTED_CONNECTIONS`, with their total number.
   * @throws RedisUnavailable
   */
  async list(userId: string): Promise<{ total: number; connections: ListedConnection[] }> {
    const keys = this.#deps.keys.user(userId);
    const reply = await listConnections.run(this.#deps.redis, [keys.leases, keys.connections], [LISTED_CONNECTIONS]);
    const [total, ...rows] = reply;
    const connections = rows.map(([connection_id, endsAt, details]) => ({
      connection_id,
      ...(JSON.parse(details) as ConnectionDetails),
      lease_ends_at: new Date(endsAt).toISOString(),
    }));
    return { total, connections };
  }

  /** Returns the connection cap of a plan. */
  capOf(plan: string): number {
    return this.#deps.plans.effective(plan).connections ?? this.#options.maxConnectionsPerUser;
  }

  /** Script arguments: the default cap first, then the cap of each current plan. */
  #caps(): (string | number)[] {
    const fallback = this.#options.maxConnectionsPerUser;
    return ['', fallback, ...this.#deps.plans.all.flatMap(({ name, connections }) => [name, connections ?? fallback])];
  }
}

/** Arguments of `admitConnection` in place of a token and its registration. */
const NO_TOKEN: readonly string[] = Array.from({ length: 8 }, () => '');

/** Keys of the session of a token. A script without a token does not touch them. */
function tokenKeys(
  keys: UserKeys,
  entry: SessionEntry | undefined,
): [due: string, session: string, connections: string] {
  const session = entry?.session ?? '';
  return [keys.tokenDue, keys.tokenSession(session), keys.tokenConnections(session)];
}

function inChunks<Item>(items: readonly Item[], size: number): Item[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, at) => items.slice(at * size, (at + 1) * size));
}
