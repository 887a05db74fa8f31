/**
 * Every Redis key and channel. A user's keys share the hash tag of the user's partition (`{p17}`), so that one script
 * can touch all of them, and the partition's usage outbox with them, on Redis Cluster too.
 */

/**
 * How many partitions users are spread over. Enough for the shards of a large cluster, few enough that a worker looks
 * at all outboxes in one round trip. Changing it moves every user's data: never change it on a running installation.
 */
export const PARTITIONS = 64;

/** FNV-1a, 32 bits: even over short names, and a dozen lines shorter than a keyed hash that nobody needs here. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

export function partitionOf(userId: string): number {
  return fnv1a(userId) % PARTITIONS;
}

function nodeChannel(partitionTag: string, nodeId: string): string {
  return `${partitionTag}:node:${nodeId}`;
}

export class Keys {
  readonly prefix: string;

  /** @param prefix separates installations (and tests) that share a Redis */
  constructor(prefix: string) {
    this.prefix = prefix;
  }

  user(userId: string): UserKeys {
    return new UserKeys(this.#partition(partitionOf(userId)), userId);
  }

  /** Usage records that wait to be folded into the ledger. */
  outbox(partition: number): string {
    return `${this.#partition(partition)}:outbox`;
  }

  /** Runs that have not ended, scored by the time after which nobody can still be working on them. */
  activeRuns(partition: number): string {
    return `${this.#partition(partition)}:active-runs`;
  }

  /** Tool calls outside runs that have not ended, scored by the time after which nobody can still be executing them. */
  activeCalls(partition: number): string {
    return `${this.#partition(partition)}:active-calls`;
  }

  /** Login sessions with live connections, `<user id> <session>`, scored by when their token is to be refreshed. */
  tokenDue(partition: number): string {
    return `${this.#partition(partition)}:token-due`;
  }

  /** The ledger's records, one stream entry each, `<sequence>-0`. */
  get ledger(): string {
    return `${this.prefix}:{ledger}:records`;
  }

  /**
   * The ledger's last sequence and hash, how far each outbox has been folded, what has been trimmed, and which Redis
   * had it when the archive agreed with it.
   */
  get ledgerState(): string {
    return `${this.prefix}:{ledger}:state`;
  }

  /** Corrections that wait to be folded: an outbox like those of the partitions, in the ledger's slot. */
  get corrections(): string {
    return `${this.prefix}:{ledger}:corrections`;
  }

  /** Records that a failure of Redis may have lost, given back by who still had them: folded unless they are there. */
  get resubmitted(): string {
    return `${this.prefix}:{ledger}:returned`;
  }

  /** The ids of those that were given back: nothing else is folded under one of them. */
  get resubmittedIds(): string {
    return `${this.prefix}:{ledger}:returned-ids`;
  }

  /** What an idempotency key of `POST /v1/usage/corrections` was used for. */
  correction(digest: string): string {
    return `${this.prefix}:{ledger}:correction:${digest}`;
  }

  /** Per corrected record, the sum of its corrections. */
  get corrected(): string {
    return `${this.prefix}:{ledger}:corrected`;
  }

  /** Digests of the idempotency keys (see `correction`) under which records of a user were corrected; expires. */
  correctionsOf(userId: string): string {
    return `${this.prefix}:{ledger}:corrections-of:${userId}`;
  }

  /** Records of erased users under their pseudonym, scored by sequence: they replace the stream's entries. */
  get erasedRecords(): string {
    return `${this.prefix}:{ledger}:erased-records`;
  }

  /** Erasures in progress, `<erasure id> <user id>`, scored by their start. */
  get erasures(): string {
    return `${this.prefix}:{ledger}:erasures`;
  }

  /** Progress and result of one erasure; names the user only while it is in progress. */
  erasure(id: string): string {
    return `${this.prefix}:{ledger}:erasure:${id}`;
  }

  /** What was used in an hour, by user, tool and plan. @param hour e.g. `2026-11-20T10` */
  tally(hour: string): string {
    return `${this.prefix}:{ledger}:tally:${hour}`;
  }

  /** The window of an hour: its closed revisions and its open one. */
  window(hour: string): string {
    return `${this.prefix}:{ledger}:window:${hour}`;
  }

  /** The hours whose window has an open revision, scored by the time that it closes at. */
  get openWindows(): string {
    return `${this.prefix}:{ledger}:open-windows`;
  }

  /** What each consumer of the ledger has confirmed. */
  get consumers(): string {
    return `${this.prefix}:{ledger}:consumers`;
  }

  /** What a one-time ticket stands for. One key, written and taken by itself, so that its slot does not matter. */
  ticket(digest: string): string {
    return `${this.prefix}:ticket:${digest}`;
  }

  /** The gateway nodes that are alive, and what each says of itself. */
  get nodes(): string {
    return `${this.prefix}:{nodes}:leases`;
  }
  get nodeDetails(): string {
    return `${this.prefix}:{nodes}:details`;
  }

  /** What every gateway must learn, one stream entry each; in one slot with the revocations that it announces. */
  get invalidations(): string {
    return `${this.prefix}:{announcements}:stream`;
  }
  /** Revoked tokens and sessions, scored by the time after which nothing is accepted in their name anyway. */
  get revocations(): string {
    return `${this.prefix}:{announcements}:revoked`;
  }
  /** Sharded channel that says that the stream has grown. */
  get invalidationChannel(): string {
    return `${this.prefix}:{announcements}:nudge`;
  }

  /** Sharded channels on which workers listen for runs to cancel: `UserKeys.runControl` of all partitions. */
  get runControls(): string[] {
    return Array.from({ length: PARTITIONS }, (_, partition) => `${this.#partition(partition)}:run-control`);
  }

  /** Sharded channels that a node listens to as long as it lives: by them a script sees, in any slot, that it does. */
  nodeChannels(nodeId: string): string[] {
    return Array.from({ length: PARTITIONS }, (_, partition) => nodeChannel(this.#partition(partition), nodeId));
  }

  /** BullMQ's own keys; the tag keeps a queue in one slot. */
  get queues(): string {
    return `{${this.prefix}:bull}`;
  }

  /** The adapter's channels for Socket.IO's own cluster operations. */
  get socketIo(): string {
    return `${this.prefix}:socket.io`;
  }

  /** Everything of the reference auth service; it runs on one slot, a deployment with more has its own server. */
  auth(name: string): string {
    return `${this.prefix}:{auth}:${name}`;
  }

  #partition(partition: number): string {
    return `${this.prefix}:{p${partition}}`;
  }
}

/** Whether a channel is that of some user: see `UserKeys.channel`. */
export function isUserChannel(name: string): boolean {
  return name.endsWith(':live');
}

/** The keys of one user. */
export class UserKeys {
  readonly #tag: string;
  readonly #userId: string;

  constructor(partitionTag: string, userId: string) {
    this.#tag = partitionTag;
    // A colon is what keys are joined with: without this, `bob` and `bob:thread` could share a key.
    this.#userId = userId.replaceAll('%', '%25').replaceAll(':', '%3A');
  }

  /** What operators decided about the user: plan, block, the time before which issued tokens are revoked. */
  get account(): string {
    return this.#of('account');
  }
  /** Live connections, scored by the end of their lease. */
  get leases(): string {
    return this.#of('leases');
  }
  /** Per connection: its place in the order of admission, node and endpoint. */
  get connections(): string {
    return this.#of('connections');
  }
  /** Connections that lost their place, until their node must have heard of it. */
  get evicted(): string {
    return this.#of('evicted');
  }
  /** The event log, and its epoch and last `seq`. */
  get log(): string {
    return this.#of('log');
  }
  get logState(): string {
    return this.#of('log-state');
  }
  /** Sharded channel of the user: events as they are appended, and control messages for the user's connections. */
  get channel(): string {
    return this.#of('live');
  }
  /** Of `Keys.nodeChannels`, the one in the user's slot. */
  nodeChannel(nodeId: string): string {
    return nodeChannel(this.#tag, nodeId);
  }
  /** Of `Keys.runControls`, the one in the user's slot. */
  get runControl(): string {
    return `${this.#tag}:run-control`;
  }
  get messageRate(): string {
    return this.#of('message-rate');
  }
  /** Tickets that the user got in the current minute. */
  get ticketRate(): string {
    return this.#of('ticket-rate');
  }
  /** The user's own recent usage records, for the tools that compute over them. */
  get recentUsage(): string {
    return this.#of('recent-usage');
  }
  /** What the user has used of what is limited, and what that cost: see lua/include/quotas.lua. */
  get quota(): string {
    return this.#of('quota');
  }
  /** The user's tool calls under way, scored by when they count as dead. */
  get reservations(): string {
    return this.#of('reservations');
  }
  /** A tool call outside a run: who asked for what, and its outcome. */
  call(callId: string): string {
    return this.#of(`call:${callId}`);
  }
  /** Ids of the calls that `call` has a key for, scored by the time at which that key expires. */
  get calls(): string {
    return this.#of('calls');
  }
  /** The runs that `run` has a key for, scored by the time they were accepted. */
  get runs(): string {
    return this.#of('runs');
  }
  /** The user's runs that have not ended, scored by the time after which they count as dead. */
  get runsInFlight(): string {
    return this.#of('runs-in-flight');
  }
  run(runId: string): string {
    return this.#of(`run:${runId}`);
  }
  /** The run that a `request_id` started. */
  request(requestId: string): string {
    return this.#of(`request:${requestId}`);
  }
  /** The user's threads, scored by their last change, and what is known of each. */
  get threads(): string {
    return this.#of('threads');
  }
  get threadInfo(): string {
    return this.#of('thread-info');
  }
  thread(threadId: string): string {
    return this.#of(`thread:${threadId}`);
  }
  /** The latest token of a login session, and the session's live connections. */
  tokenSession(session: string): string {
    return this.#of(`token:${session}`);
  }
  tokenConnections(session: string): string {
    return this.#of(`token-connections:${session}`);
  }
  get tokenDue(): string {
    return `${this.#tag}:token-due`;
  }
  get outbox(): string {
    return `${this.#tag}:outbox`;
  }
  get activeRuns(): string {
    return `${this.#tag}:active-runs`;
  }
  get activeCalls(): string {
    return `${this.#tag}:active-calls`;
  }

  #of(name: string): string {
    return `${this.#tag}:${this.#userId}:${name}`;
  }
}
