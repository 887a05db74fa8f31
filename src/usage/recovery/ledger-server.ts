import type { Clock } from '../../lib/clock.ts';
import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import { LuaScript } from '../../redis/scripts.ts';

const identifyServer = LuaScript.load('identifyServer-1');
const agreeWithServer = LuaScript.load('agreeWithServer-1');

/**
 * So long the folding waits for an archive to be compared with a Redis that is another one than before. A comparison takes
 * a second; putting back half a million lost records takes about as long as this.
 */
export const GATE_TIMEOUT_MS = 15_000;

/** The Redis that has the ledger: another one after each restart and each fail-over, by its id. */
export class LedgerServer {
  readonly #redis: Redis;
  readonly #keys: Keys;

  constructor({ redis, keys }: { redis: Redis; keys: Keys }) {
    this.#redis = redis;
    this.#keys = keys;
  }

  /**
   * Which it is, whether the archive has agreed with it, and its time in milliseconds since the epoch.
   * @throws TollgateError OVERLOADED while Redis is away
   */
  async identify(): Promise<{ serverId: string; agreed: boolean; now: number }> {
    const reply = await identifyServer.run(this.#redis, [this.#keys.ledgerState], []);
    const [serverId, agreed, now] = reply as [string, string, number];
    return { serverId, agreed: serverId === agreed, now };
  }

  /** Notes that the archive has nothing that the ledger of this server lacks; of another server nothing is noted. */
  async agree(serverId: string): Promise<void> {
    await agreeWithServer.run(this.#redis, [this.#keys.ledgerState], [serverId]);
  }
}

/**
 * Holds the folding back while a Redis is new and its ledger has not been compared with the archive: what was lost can be
 * put back as it was only until something else has its place. Never for longer than `patienceMs`: an archive that is away
 * must not keep a bill from being written.
 */
export class LedgerGate {
  readonly #server: LedgerServer;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  /** The server that is waited for, and since when. */
  #waiting: { readonly serverId: string; readonly since: number } | undefined;

  constructor(
    { server, clock }: { readonly server: LedgerServer; readonly clock: Clock },
    { timeoutMs = GATE_TIMEOUT_MS }: { readonly timeoutMs?: number } = {},
  ) {
    this.#server = server;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
  }

  /** @throws TollgateError OVERLOADED while Redis is away */
  async isOpen(): Promise<boolean> {
    const { serverId, agreed } = await this.#server.identify();
    if (agreed) {
      this.#waiting = undefined;
      return true;
    }
    if (this.#waiting?.serverId !== serverId) this.#waiting = { serverId, since: this.#clock.now() };
    return this.#clock.now() - this.#waiting.since >= this.#timeoutMs;
  }
}
