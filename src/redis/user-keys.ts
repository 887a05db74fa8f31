/**
 * Returns the channel of a node in a partition.
 * @param partitionTag prefix of the deployment and hash tag of the partition, e.g. `tollgate:{p17}`
 */
export function nodeChannel(partitionTag: string, nodeId: string): string {
  return `${partitionTag}:node:${nodeId}`;
}

/** The keys of one user. */
export class UserKeys {
  readonly #tag: string;
  readonly #userId: string;

  /** @param partitionTag prefix of the deployment and hash tag of the user's partition, e.g. `tollgate:{p17}` */
  constructor(partitionTag: string, userId: string) {
    this.#tag = partitionTag;
    this.#userId = escapedUserId(userId);
  }

  /** The account: plan, block, and the time before which issued tokens are revoked. */
  get account(): string {
    return this.#of('account');
  }
  /** Leases of the live connections, scored by their expiry. */
  get leases(): string {
    return this.#of('leases');
  }
  /** Hash: admission order, node and endpoint per connection. */
  get connections(): string {
    return this.#of('connections');
  }
  /** Evicted and closed connections, kept until their node must have noticed. */
  get evicted(): string {
    return this.#of('evicted');
  }
  /** The event log, and its log epoch and last `seq`. */
  get log(): string {
    return this.#of('log');
  }
  get logState(): string {
    return this.#of('log-state');
  }
  /** Durable events of services: the result per idempotency key, the rate, and the keys by time. */
  get published(): string {
    return this.#of('published');
  }
  get publishedKeys(): string {
    return this.#of('published-keys');
  }
  /** The user channel (sharded): appended events, and control messages for the connections of the user. */
  get channel(): string {
    return this.#of('live');
  }
  /** The channel of `Keys.nodeChannels` in the user's slot. */
  nodeChannel(nodeId: string): string {
    return nodeChannel(this.#tag, nodeId);
  }
  /** The channel of `Keys.runControls` in the user's slot. */
  get runControl(): string {
    return `${this.#tag}:run-control`;
  }
  /** Number of messages of the user in the current window of the message limit. */
  get messageRate(): string {
    return this.#of('message-rate');
  }
  /** Number of tickets issued to the user in the current minute. */
  get ticketRate(): string {
    return this.#of('ticket-rate');
  }
  /** The user's recent usage records, for the tools that compute over them. */
  get recentUsage(): string {
    return this.#of('recent-usage');
  }
  /** Counted uses per limit, and the cost per day and month: see lua/include/quotas.lua. */
  get quota(): string {
    return this.#of('quota');
  }
  /** Reservations of the user's tool calls in flight, scored by their expiry. */
  get reservations(): string {
    return this.#of('reservations');
  }
  /** A tool call outside a run: its request and its outcome. */
  call(callId: string): string {
    return this.#of(`call:${callId}`);
  }
  /** Ids of the calls that have a `call` key, scored by the time at which that key expires. */
  get calls(): string {
    return this.#of('calls');
  }
  /** Ids of the runs that have a `run` key, scored by the time of acceptance. */
  get runs(): string {
    return this.#of('runs');
  }
  /** The user's runs that have not ended, scored by the time after which they count as dead. */
  get runsInFlight(): string {
    return this.#of('runs-in-flight');
  }
  /** Hash of a run: its request, state, journal and answers. */
  run(runId: string): string {
    return this.#of(`run:${runId}`);
  }
  /** The ids of the run and the thread that a `request_id` started. */
  request(requestId: string): string {
    return this.#of(`request:${requestId}`);
  }
  /** The user's threads, scored by their last change, and the details of each. */
  get threads(): string {
    return this.#of('threads');
  }
  get threadInfo(): string {
    return this.#of('thread-info');
  }
  /** Stream of the messages of a thread. */
  thread(threadId: string): string {
    return this.#of(`thread:${threadId}`);
  }
  /** The latest access and refresh token of a session, and the live connections of the session. */
  tokenSession(session: string): string {
    return this.#of(`token:${session}`);
  }
  tokenConnections(session: string): string {
    return this.#of(`token-connections:${session}`);
  }
  /** Digests of the refresh tokens that workers have sent to a provider, scored by the time. */
  get usedRefreshTokens(): string {
    return this.#of('used-refresh-tokens');
  }
  /** The keys of the user's partition, which `Keys` describes. */
  get tokenDue(): string {
    return `${this.#tag}:token-due`;
  }
  get outbox(): string {
    return `${this.#tag}:outbox`;
  }
  get activeRuns(): string {
    return `${this.#tag}:active-runs`;
  }
  get unsuccessfulRuns(): string {
    return `${this.#tag}:unsuccessful-runs`;
  }
  get activeCalls(): string {
    return `${this.#tag}:active-calls`;
  }

  #of(name: string): string {
    return `${this.#tag}:${this.#userId}:${name}`;
  }
}

/** Keys are joined with colons. Without the escape, `bob` and `bob:thread` could share a key. */
function escapedUserId(userId: string): string {
  return userId.replaceAll('%', '%25').replaceAll(':', '%3A');
}

/** Returns whether a channel is a user channel (see `UserKeys.channel`). */
export function isUserChannel(name: string): boolean {
  return name.endsWith(':live');
}

/**
 * Returns a SCAN pattern for keys that a user has for long: account, leases, log state. It may match other keys: see
 * `userIdOfKey`.
 * @param part part of the user id
 */
export function userKeyPattern(prefix: string, part: string): string {
  const literal = escapedUserId(part).replaceAll(/[\\*?[\]^]/g, '\\$&');
  return `${prefix}:{p*}:*${literal}*:[al]*`;
}

/** Returns the user of an account, of leases or of the state of an event log; undefined for any other key. */
export function userIdOfKey(key: string): string | undefined {
  const [, id] = /\{p\d+\}:([^:]*):(?:account|leases|log-state)$/.exec(key) ?? [];
  return id?.replaceAll('%3A', ':').replaceAll('%25', '%');
}

/**
 * Returns a SCAN pattern for the states of all event logs (`UserKeys.logState`). It may match other keys: see
 * `isLogState`.
 */
export function logStatePattern(prefix: string): string {
  return `${prefix}:{p*}:*:log-state`;
}

/**
 * Returns whether a key that `logStatePattern` matches is the state of an event log: a user id has no colon in keys.
 */
export function isLogState(key: string): boolean {
  return /\{p\d+\}:[^:]*:log-state$/.test(key);
}
