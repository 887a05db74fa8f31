import { setTimeout as delay } from 'node:timers/promises';
import { type RedisOptions, Redis as RedisServer } from 'ioredis';
import type { RedisNode } from '../lib/redis-url.ts';

/** Timeout of a command to a Sentinel. */
const TIMEOUT_MS = 1_000;
/** After the first answer, the others have this long, so that a Sentinel that hangs delays no connection. */
const OTHERS_MS = 250;
/** Interval of the questions that find a failover whose message was lost. */
const POLL_MS = 2_000;
/** A connection that receives nothing for this long is reopened: the machine of the Sentinel may have disappeared. */
const SILENCE_MS = 5_000;
/** Bounds the connections. Deployments have three or five Sentinels. */
const MAX_SENTINELS = 10;
/** The Sentinels publish here that they replaced a master. */
const SWITCHED = '+switch-master';

/** The master that a Sentinel names. Every failover has a higher epoch than the failovers before it. */
export interface NamedMaster extends RedisNode {
  readonly epoch: number;
}

export interface SentinelsOptions {
  /** Name of the master in the configuration of the Sentinels. */
  readonly masterName: string;
  /** The initial contacts; they report the others. */
  readonly nodes: readonly RedisNode[];
  /** User, password and TLS of the Sentinels. */
  readonly connection: RedisOptions;
  /** Delay in milliseconds before the given attempt to reconnect to a Sentinel. */
  readonly reconnectDelay: (attempt: number) => number;
  /** Called when a Sentinel names another master, of a later failover, than `newest` returned last. */
  readonly onFailover: () => void;
  /** Called once per outage of a Sentinel. */
  readonly onError: (error: Error) => void;
}

/**
 * Connections to the Sentinels of one master. All of them are asked at once, and the answer with the highest epoch
 * counts: a Sentinel that hangs, or was cut off during a failover and still names the former master, changes nothing.
 */
export class Sentinels {
  readonly #options: SentinelsOptions;
  readonly #connections = new Map<string, RedisServer>();
  #poll: NodeJS.Timeout | undefined;
  /** The latest master that a Sentinel named since `newest` was called. */
  #seen: NamedMaster | undefined;
  /** The master that `newest` returned. */
  #returned: NamedMaster | undefined;

  constructor(options: SentinelsOptions) {
    this.#options = options;
  }

  /**
   * Asks all Sentinels for the master, and opens the connections to them if necessary.
   * @throws Error if no Sentinel names a master within a second
   */
  async newest(): Promise<NamedMaster> {
    this.#open();
    this.#seen = undefined;
    const answers = [...this.#connections.values()].map((sentinel) => this.#ask(sentinel));
    await Promise.any(answers).catch(({ errors }: AggregateError) => {
      throw new Error(`no Sentinel names the master: ${describe(errors[0])}`);
    });
    await Promise.race([Promise.allSettled(answers), delay(OTHERS_MS, undefined, { ref: false })]);
    // The first answer has set it.
    if (!this.#seen) throw new Error('no Sentinel names the master');
    this.#returned = this.#seen;
    return this.#seen;
  }

  close(): void {
    clearInterval(this.#poll);
    this.#poll = undefined;
    for (const sentinel of this.#connections.values()) sentinel.disconnect();
    this.#connections.clear();
  }

  #open(): void {
    for (const node of this.#options.nodes) this.#add(node);
    this.#poll ??= setInterval(() => {
      for (const sentinel of this.#connections.values()) this.#check(sentinel);
    }, POLL_MS).unref();
  }

  #add({ host, port }: RedisNode): void {
    const address = `${host}:${port}`;
    if (this.#connections.has(address) || this.#connections.size >= MAX_SENTINELS) return;
    const { connection, reconnectDelay, onError } = this.#options;
    const sentinel = new RedisServer({
      ...connection,
      host,
      port,
      connectionName: 'tollgate-sentinel',
      connectTimeout: TIMEOUT_MS,
      commandTimeout: TIMEOUT_MS,
      socketTimeout: SILENCE_MS,
      maxRetriesPerRequest: 0,
      // Sentinels have no INFO field that ioredis waits for.
      enableReadyCheck: false,
      retryStrategy: reconnectDelay,
    });
    this.#connections.set(address, sentinel);
    let isDown = false;
    sentinel.on('error', (error: Error) => {
      if (!isDown) onError(new Error(`Sentinel ${address}: ${error.message}`));
      isDown = true;
    });
    sentinel.on('ready', () => {
      isDown = false;
      // ioredis restores only subscriptions that were confirmed. A failover of the time before is found by the
      // question.
      sentinel.subscribe(SWITCHED).catch(() => undefined);
      this.#check(sentinel);
    });
    sentinel.on('message', () => this.#check(sentinel));
  }

  /** Asks one Sentinel whether there was a failover. A Sentinel that does not answer is asked again later. */
  #check(sentinel: RedisServer): void {
    if (sentinel.status !== 'ready') return;
    const compare = (named: NamedMaster) => {
      const known = this.#returned;
      if (!known || named.epoch <= known.epoch || isSame(named, known)) return;
      this.#options.onFailover();
    };
    this.#ask(sentinel).then(compare, () => undefined);
  }

  async #ask(sentinel: RedisServer): Promise<NamedMaster> {
    const { masterName } = this.#options;
    const [address, state, others] = await Promise.all([
      sentinel.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', masterName),
      sentinel.call('SENTINEL', 'MASTER', masterName),
      sentinel.call('SENTINEL', 'SENTINELS', masterName),
    ]);
    const named = readMaster(address, state);
    if (!named) throw new Error(`the Sentinel does not know the master ${masterName}`);
    // Connections of a closed object would stay open.
    if (this.#poll) for (const node of readSentinels(others)) this.#add(node);
    if (!this.#seen || named.epoch > this.#seen.epoch) this.#seen = named;
    return named;
  }
}

function isSame(one: RedisNode, other: RedisNode): boolean {
  return one.host === other.host && one.port === other.port;
}

function readMaster(address: unknown, state: unknown): NamedMaster | undefined {
  const [host, port] = Array.isArray(address) ? address.map(String) : [];
  if (host === undefined || port === undefined) return undefined;
  return { host, port: Number(port), epoch: Number(fields(state).get('config-epoch') ?? 0) };
}

/** Returns the other Sentinels that the asked one reaches. */
function readSentinels(reply: unknown): RedisNode[] {
  const rows = Array.isArray(reply) ? reply.map(fields) : [];
  return rows.flatMap((row) => {
    const [host, port] = [row.get('ip'), Number(row.get('port'))];
    const isReachable = !/disconnected|s_down|o_down/.test(row.get('flags') ?? '');
    return host && port && isReachable ? [{ host, port }] : [];
  });
}

/** Reads a flat list of names and values. */
function fields(reply: unknown): Map<string, string> {
  const flat = Array.isArray(reply) ? reply.map(String) : [];
  return new Map(flat.flatMap((name, at) => (at % 2 === 0 ? [[name, flat[at + 1] ?? ''] as const] : [])));
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
