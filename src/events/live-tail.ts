import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { LogEntry } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { RedisUnavailable } from '../redis/errors.ts';
import type { Keys } from '../redis/keys.ts';
import { onRestored } from '../redis/subscriptions.ts';
import { isUserChannel } from '../redis/user-keys.ts';
import { parsePublished } from './event-log.ts';

/** A subscriber of a user channel on this node. */
export interface TailListener {
  /** An appended event. Events may be repeated or missing, so the listener compares `seq`. */
  onEntry(entry: LogEntry): void;
  /** A control message for the connections of the user, parsed from JSON. */
  onControl(control: Readonly<Record<string, unknown>>): void;
  /** The connection to Redis was lost and restored, so messages may have been missed. */
  onGap(): void;
}

interface Channel {
  readonly name: string;
  /** Replaced at each change, because listeners leave while an event is passed on. */
  listeners: readonly TailListener[];
  /** Settles when Redis has confirmed the subscription; undefined from then on. */
  subscribed: Promise<void> | undefined;
}

/** Timeout of the confirmation of a subscription. The client receives `OVERLOADED` and may retry. */
const SUBSCRIBE_TIMEOUT_MS = 3_000;

export interface LiveTailDeps {
  /** A connection with the role `subscriber`; no other component may subscribe to user channels on it. */
  readonly redis: Redis;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Observes each appended event once, however many listeners its user has. */
  readonly onEntry?: (entry: LogEntry) => void;
}

/**
 * Receives the messages of the users that this node serves, over one connection. It subscribes to one sharded channel
 * per user, for as long as the user has a listener. docs/decisions/0001-delivery.md describes the alternatives and
 * their costs.
 */
export class LiveTail {
  readonly #deps: LiveTailDeps;
  readonly #channels = new Map<string, Channel>();

  constructor(deps: LiveTailDeps) {
    this.#deps = deps;
    deps.redis.on('smessage', (name: string, message: string) => this.#receive(name, message));
    onRestored(
      deps.redis,
      () => this.#channels.keys(),
      () => this.#restored(),
    );
  }

  /**
   * Subscribes to a user channel. When the promise resolves, every later message reaches the listener.
   * @throws RedisUnavailable also when Redis does not confirm in time; then the listener is removed
   */
  async listen(userId: string, listener: TailListener): Promise<void> {
    // Waiting for Redis here would queue subscriptions without a bound.
    if (this.#deps.redis.status !== 'ready') throw new RedisUnavailable();
    const name = this.#deps.keys.user(userId).channel;
    const channel = this.#channels.get(name) ?? this.#open(name);
    channel.listeners = [...channel.listeners, listener];
    if (!channel.subscribed) return;
    try {
      await channel.subscribed;
      channel.subscribed = undefined;
    } catch (cause) {
      this.#remove(channel, listener);
      throw new RedisUnavailable({ cause });
    }
  }

  /** Removes a listener; does nothing if it has been removed. The last one of a user ends the subscription. */
  leave(userId: string, listener: TailListener): void {
    const channel = this.#channels.get(this.#deps.keys.user(userId).channel);
    if (channel) this.#remove(channel, listener);
  }

  /**
   * Subscribes permanently to channels that carry no messages. Redis drops the subscriptions together with the
   * connection, so their subscriber count shows whether this process is alive.
   * @throws RedisUnavailable also when Redis does not confirm in time
   */
  async attend(names: readonly string[]): Promise<void> {
    await Promise.all(names.map((name) => this.#open(name).subscribed));
  }

  #open(name: string): Channel {
    const subscribed = withTimeout(this.#deps.clock, this.#deps.redis.ssubscribe(name), SUBSCRIBE_TIMEOUT_MS);
    const channel: Channel = { name, listeners: [], subscribed };
    this.#channels.set(name, channel);
    return channel;
  }

  #remove(channel: Channel, listener: TailListener): void {
    if (!channel.listeners.includes(listener)) return;
    channel.listeners = channel.listeners.filter((one) => one !== listener);
    if (channel.listeners.length > 0 || this.#channels.get(channel.name) !== channel) return;
    this.#channels.delete(channel.name);
    this.#unsubscribe(channel.name);
  }

  /**
   * Unsubscribes without waiting. A later `listen` sends its SSUBSCRIBE behind this command on the same connection, so
   * it remains subscribed.
   */
  #unsubscribe(name: string): void {
    this.#deps.redis.sunsubscribe(name).catch((error: Error) => {
      this.#deps.logger.debug({ error: error.message }, 'unsubscribe failed, the connection is closed');
    });
  }

  #receive(name: string, message: string): void {
    const listeners = this.#channels.get(name)?.listeners;
    if (!listeners) {
      // The subscription remains from an SSUBSCRIBE or SUNSUBSCRIBE that failed while the shard was unavailable.
      if (isUserChannel(name)) this.#unsubscribe(name);
      return;
    }
    try {
      this.#deliver(message, listeners);
    } catch (error) {
      // In a listener of the Redis client, an error would end the process with the connections of all users.
      this.#deps.logger.error({ err: error }, 'a message of a user channel could not be delivered');
    }
  }

  #deliver(message: string, listeners: readonly TailListener[]): void {
    if (message.startsWith('e')) {
      const entry = parsePublished(message.slice(1));
      this.#deps.onEntry?.(entry);
      for (const listener of listeners) listener.onEntry(entry);
      return;
    }
    const control = JSON.parse(message.slice(1)) as Record<string, unknown>;
    for (const listener of listeners) listener.onControl(control);
  }

  #restored(): void {
    for (const { listeners } of this.#channels.values()) for (const listener of listeners) listener.onGap();
  }
}

/** Returns `work`, or rejects after `timeoutMs`. */
function withTimeout(clock: Clock, work: Promise<unknown>, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(timeoutMs, () => reject(new Error(`no answer within ${timeoutMs} ms`)));
    work.then(
      () => {
        cancel();
        resolve();
      },
      (error: Error) => {
        cancel();
        reject(error);
      },
    );
  });
}
