import { setTimeout as delay } from 'node:timers/promises';
import type { OpenTransport } from '../../packages/client/src/main.ts';
import type { Random } from '../../test/support/chaos/random.ts';

const AWAKE_MS = 2_500;
const ASLEEP_MS = 5_000;

/**
 * The transport of a device on the move: each connection uses another transport and another node, and is lost without
 * notice after some time. Then the device reconnects at once, or sleeps first.
 */
export class RoamingTransport {
  readonly #transports: readonly OpenTransport[];
  readonly #urls: readonly string[];
  readonly #random: Random;
  #drop: () => void = () => {};
  #sleptUntil = 0;

  constructor(transports: readonly OpenTransport[], urls: readonly string[], random: Random) {
    this.#transports = transports;
    this.#urls = urls;
    this.#random = random;
  }

  /** Loses its connection again and again until the signal. */
  async move(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await delay(this.#random.below(AWAKE_MS), undefined, { signal }).catch(() => undefined);
      if (this.#random.chance(0.3)) this.#sleptUntil = performance.now() + this.#random.below(ASLEEP_MS);
      this.#drop();
    }
    this.#sleptUntil = 0;
  }

  readonly open: OpenTransport = (options, handlers) => {
    const lost = { code: undefined, retryable: undefined, retryAfterMs: undefined, final: false };
    const asleep = performance.now() < this.#sleptUntil;
    const [inner, url] = [this.#pick(this.#transports), this.#pick(this.#urls)];
    if (!inner || !url || asleep) {
      queueMicrotask(() => handlers.closed({ ...lost, detail: 'the device sleeps' }));
      return { send: () => {}, close: () => {} };
    }
    const transport = inner({ ...options, url }, handlers);
    this.#drop = () => {
      this.#drop = () => {};
      transport.close();
      handlers.closed({ ...lost, detail: 'the device moved' });
    };
    return {
      send: (type, fields) => transport.send(type, fields),
      close: () => {
        this.#drop = () => {};
        transport.close();
      },
    };
  };

  #pick<T>(items: readonly T[]): T | undefined {
    return items[this.#random.below(items.length)];
  }
}
