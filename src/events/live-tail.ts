import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import type { LogEntry } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { isUserChannel, type Keys } from '../redis/keys.ts';
import { onRestored } from '../redis/subscriptions.ts';
import { parsePublished } from './event-log.ts';

/** Who listens to a user's channel on this node. */
export interface TailListener {
  /** An event as it was appended. May come twice or leave a hole: the listener compares `seq`. */
  readonly onEntry: (entry: LogEntry) => void;
  /** A message for the user's connections, as JSON sent it. */
  readonly onControl: (control: Readonly<Record<string, unknown>>) => void;
  /** Messages may have been missed: the connection to Redis was away. */
  readonly onGap: () => void;
}

interface Channel {
  readonly name: string;
  readonly listeners: Set<TailListener>;
  /** Settles when Redis has confirmed the subscription. */
  readonly subscribed: Promise<void>;
}

/** A subscription that Redis does not confirm in this time fails; the client is told to try again. */
const SUBSCRIBE_TIMEOUT_MS = 3_000;

/**
 * What is published to the users that this node holds, over one connection: a sharded channel a user, subscribed while
 * somebody listens (docs/decisions/0001-delivery.md has the alternatives and what they cost).
 */
export class LiveTail {
  readonly #redis: Redis;
  readonly #keys: Keys;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #channels = new Map<string, Channel>();

  /** @param redis a connection in the role `subscriber`; its channels of users are this object's alone */
  constructor({ redis, keys, clock, logger }: { redis: Redis; keys: Keys; clock: Clock; logger: Logger }) {
    this.#redis = redis;
    this.#keys = keys;
    this.#clock = clock;
    this.#logger = logger;
    redis.on('smessage', (name: string, message: string) => this.#receive(name, message));
    onRestored(
      redis,
      () => this.#channels.keys(),
      () => this.#restored(),
    );
  }

  /**
   * Listens to a user. When it resolves, whatever is published from then on reaches the listener.
   * @returns stops listening
   * @throws TollgateError OVERLOADED when Redis is away or does not confirm in time
   */
  async listen(userId: string, listener: TailListener): Promise<() => void> {
    // Waiting for it here would queue subscriptions without a bound.
    if (this.#redis.status !== 'ready') throw new TollgateError('OVERLOADED');
    const name = this.#keys.user(userId).channel;
    const channel = this.#channels.get(name) ?? this.#open(name);
    channel.listeners.add(listener);
    const stop = () => this.#leave(channel, listener);
    try {
      await channel.subscribed;
    } catch (cause) {
      stop();
      throw new TollgateError('OVERLOADED', { cause });
    }
    return stop;
  }

  /**
   * Stays subscribed to channels to which nobody publishes: Redis drops the subscriptions with the connection, so that
   * they show at once whether this process lives.
   * @throws TollgateError OVERLOADED when Redis is away or does not confirm in time
   */
  async attend(names: readonly string[]): Promise<void> {
    await Promise.all(names.map((name) => this.#open(name).subscribed));
  }

  #open(name: string): Channel {
    const subscribed = withTimeout(this.#clock, this.#redis.ssubscribe(name), SUBSCRIBE_TIMEOUT_MS);
    const channel: Channel = { name, listeners: new Set(), subscribed };
    this.#channels.set(name, channel);
    return channel;
  }

  #leave(channel: Channel, listener: TailListener): void {
    channel.listeners.delete(listener);
    if (channel.listeners.size > 0 || this.#channels.get(channel.name) !== channel) return;
    this.#channels.delete(channel.name);
    this.#unsubscribe(channel.name);
  }

  /** A later `listen` sends its own SSUBSCRIBE on the same connection, after this: the order keeps it subscribed. */
  #unsubscribe(name: string): void {
    this.#redis.sunsubscribe(name).catch((error: Error) => {
      this.#logger.debug({ error: error.message }, 'unsubscribe failed; the connection is gone and so is the channel');
    });
  }

  #receive(name: string, message: string): void {
    const listeners = this.#channels.get(name)?.listeners;
    if (!listeners) {
      // Left over from a subscription that failed, or could not be given up, while its shard was away.
      if (isUserChannel(name)) this.#unsubscribe(name);
      return;
    }
    if (message.startsWith('e')) {
      const entry = parsePublished(message.slice(1));
      for (const { onEntry } of listeners) onEntry(entry);
      return;
    }
    const control = JSON.parse(message.slice(1)) as Record<string, unknown>;
    for (const { onControl } of listeners) onControl(control);
  }

  #restored(): void {
    for (const { listeners } of this.#channels.values()) for (const { onGap } of listeners) onGap();
  }
}

/** `work`, or a rejection after `timeoutMs`. */
function withTimeout(clock: Clock, work: Promise<unknown>, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(timeoutMs, () => reject(new Error(`no answer within ${timeoutMs} ms`)));
    work.then(() => resolve(), reject).finally(cancel);
  });
}
