import { nodeChannel, UserKeys } from './user-keys.ts';

/**
 * Every Redis key and channel. This file has those that users share; `user-keys.ts` has those of one user, which share
 * the hash tag of the user's partition (`{p17}`). One script can therefore update all keys of a user together with the
 * partition's usage outbox, on Redis Cluster too.
 */

/**
 * Number of partitions. It is enough for the shards of a large cluster, and few enough for a worker to read all
 * outboxes in one round trip. Changing it moves the data of every user: never change it in a running deployment.
 */
export const PARTITIONS = 64;

/** FNV-1a, 32 bits. It distributes short ids evenly, and partitioning needs no keyed hash. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

/** Returns the partition of a user, from 0. */
export function partitionOf(userId: string): number {
  return fnv1a(userId) % PARTITIONS;
}

/** The keys and channels of a deployment. */
export class Keys {
  readonly prefix: string;
  #latest: { readonly userId: string; readonly keys: UserKeys } | undefined;

  /** @param prefix separates deployments (and tests) that share a Redis */
  constructor(prefix: string) {
    this.prefix = prefix;
  }

  /** Returns the keys of a user. The latest ones are cached, because one request needs them several times. */
  user(userId: string): UserKeys {
    if (this.#latest?.userId !== userId) {
      this.#latest = { userId, keys: new UserKeys(this.#partition(partitionOf(userId)), userId) };
    }
    return this.#latest.keys;
  }

  /** Stream of usage records that have not been ingested into the ledger yet. */
  outbox(partition: number): string {
    return `${this.#partition(partition)}:outbox`;
  }

  /** Runs that have not ended, scored by the time after which no worker can still be executing them. */
  activeRuns(partition: number): string {
    return `${this.#partition(partition)}:active-runs`;
  }

  /** The latest runs that failed or were cancelled, scored by their end. */
  unsuccessfulRuns(partition: number): string {
    return `${this.#partition(partition)}:unsuccessful-runs`;
  }

  /**
   * Tool calls outside runs that have not ended, scored by the time after which no node can still be executing them.
   */
  activeCalls(partition: number): string {
    return `${this.#partition(partition)}:active-calls`;
  }

  /**
   * Sessions with live connections, `<user id> <session>`, scored by the time at which their token is due for refresh.
   */
  tokenDue(partition: number): string {
    return `${this.#partition(partition)}:token-due`;
  }

  /** Stream of the ledger records, one entry each, with the id `<sequence>-0`. */
  get ledger(): string {
    return `${this.prefix}:{ledger}:records`;
  }

  /**
   * Hash with the ledger's last sequence and hash, the cursor of each outbox, the last trimmed record, and the id of
   * the Redis server whose ledger the archive last agreed with.
   */
  get ledgerState(): string {
    return `${this.prefix}:{ledger}:state`;
  }

  /**
   * Stream of corrections that have not been ingested yet: an outbox like those of the partitions, in the slot of the
   * ledger.
   */
  get corrections(): string {
    return `${this.prefix}:{ledger}:corrections`;
  }

  /**
   * Stream of resubmitted records, which a Redis failure may have lost. Ingestion appends those that the ledger lacks.
   */
  get resubmitted(): string {
    return `${this.prefix}:{ledger}:returned`;
  }

  /** Ids of resubmitted records. Ingestion skips any other record with one of these ids. */
  get resubmittedIds(): string {
    return `${this.prefix}:{ledger}:returned-ids`;
  }

  /** The request and the record of one idempotency key of `POST /v1/usage/corrections`. */
  correction(digest: string): string {
    return `${this.prefix}:{ledger}:correction:${digest}`;
  }

  /** Hash: the sum of the corrections per corrected record. */
  get corrected(): string {
    return `${this.prefix}:{ledger}:corrected`;
  }

  /** Digests of the idempotency keys (see `correction`) under which records of a user were corrected; expires. */
  correctionsOf(userId: string): string {
    return `${this.prefix}:{ledger}:corrections-of:${userId}`;
  }

  /** Records of erased users under their pseudonym, scored by sequence. They replace entries of the ledger stream. */
  get erasedRecords(): string {
    return `${this.prefix}:{ledger}:erased-records`;
  }

  /** Erasures in progress, `<erasure id> <user id>`, scored by their start. */
  get erasures(): string {
    return `${this.prefix}:{ledger}:erasures`;
  }

  /** Hashes of users whose erasure has ended, scored by its end: processes still hold what they counted before. */
  get erasedUsers(): string {
    return `${this.prefix}:{ledger}:erased-users`;
  }

  /** Progress and result of one erasure. It contains the user id only while the erasure is in progress. */
  erasure(id: string): string {
    return `${this.prefix}:{ledger}:erasure:${id}`;
  }

  /**
   * Tally of one hour, by user, tool and plan.
   * @param hour e.g. `2026-11-20T10`
   */
  tally(hour: string): string {
    return `${this.prefix}:{ledger}:tally:${hour}`;
  }

  /** The window of an hour: its closed revisions and its open revision. */
  window(hour: string): string {
    return `${this.prefix}:{ledger}:window:${hour}`;
  }

  /** The hours whose window has an open revision, scored by the time at which it closes. */
  get openWindows(): string {
    return `${this.prefix}:{ledger}:open-windows`;
  }

  /** Hash: the confirmed position per consumer of the ledger. */
  get consumers(): string {
    return `${this.prefix}:{ledger}:consumers`;
  }

  /**
   * The credential that a ticket stands for. It is written and consumed without any other key, so its slot does not
   * matter.
   */
  ticket(digest: string): string {
    return `${this.prefix}:ticket:${digest}`;
  }

  /** Leases of the live gateway nodes, and the details that each node reports. */
  get nodes(): string {
    return `${this.prefix}:{nodes}:leases`;
  }
  get nodeDetails(): string {
    return `${this.prefix}:{nodes}:details`;
  }

  /** As `nodes` and `nodeDetails`, for the workers. */
  get workers(): string {
    return `${this.prefix}:{workers}:leases`;
  }
  get workerDetails(): string {
    return `${this.prefix}:{workers}:details`;
  }
  /** What a node or worker is requested to do: to drain or, outside production, to end. */
  drainRequest(nodeId: string): string {
    return `${this.prefix}:{drains}:${nodeId}`;
  }

  /** The processes that have stored figures, scored by the last minute; and the figures per minute and hour of one. */
  get seriesProcesses(): string {
    return `${this.prefix}:{series}:processes`;
  }
  seriesMinutes(processId: string): string {
    return `${this.prefix}:{series}:minutes:${processId}`;
  }
  seriesHours(processId: string): string {
    return `${this.prefix}:{series}:hours:${processId}`;
  }

  /** Stream of the latest refusals, with the user and the error of each. */
  get refusals(): string {
    return `${this.prefix}:{series}:refusals`;
  }

  /** Stream of the audit log: admin actions, with the ids of the users whom they concern. */
  get auditLog(): string {
    return `${this.prefix}:{audit}:log`;
  }

  /** Hash: the time at which each periodic task of the workers is due. */
  get periodicTasks(): string {
    return `${this.prefix}:{tasks}:due`;
  }

  /** Stream of invalidations. It shares a slot with the revocations, because one script writes both. */
  get invalidations(): string {
    return `${this.prefix}:{announcements}:stream`;
  }
  /** Revoked tokens and sessions, scored by the time after which they would have expired anyway. */
  get revocations(): string {
    return `${this.prefix}:{announcements}:revoked`;
  }
  /** Sharded channel for wake-ups: a message means that the invalidation stream has grown. */
  get invalidationChannel(): string {
    return `${this.prefix}:{announcements}:nudge`;
  }

  /** Sharded channels on which workers receive run cancellations: `UserKeys.runControl` of all partitions. */
  get runControls(): string[] {
    return Array.from({ length: PARTITIONS }, (_, partition) => `${this.#partition(partition)}:run-control`);
  }

  /**
   * Sharded channels to which a live node stays subscribed, one per partition, so that a script in any slot can check
   * whether the node is alive.
   */
  nodeChannels(nodeId: string): string[] {
    return Array.from({ length: PARTITIONS }, (_, partition) => nodeChannel(this.#partition(partition), nodeId));
  }

  /** Stream of the runs that workers execute, one entry each, until the run has ended. */
  get runQueue(): string {
    return `${this.prefix}:{runs}:queue`;
  }

  /** Sharded channel on which workers report the run queue while runs wait. */
  get runQueueLoad(): string {
    return `${this.prefix}:{runs}:load`;
  }

  /** Prefix of the BullMQ keys. The hash tag keeps a queue in one slot. */
  get queues(): string {
    return `{${this.prefix}:bull}`;
  }

  /** Channel prefix of the Socket.IO adapter for its own cluster operations. */
  get socketIo(): string {
    return `${this.prefix}:socket.io`;
  }

  /** Keys of the reference auth service, all in one slot. Deployments that need more slots use another auth service. */
  auth(name: string): string {
    return `${this.prefix}:{auth}:${name}`;
  }

  #partition(partition: number): string {
    return `${this.prefix}:{p${partition}}`;
  }
}
