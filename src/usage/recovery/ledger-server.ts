import type { Clock } from '../../lib/clock.ts';
import type { Redis } from '../../redis/client.ts';
import type { Keys } from '../../redis/keys.ts';
import { done, integer, text, tuple } from '../../redis/replies.ts';
import { LuaScript } from '../../redis/scripts.ts';

const identifyServer = LuaScript.load('identifyServer-1', tuple([text, text, integer]));
const agreeWithServer = LuaScript.load('agreeWithServer-1', done);

/**
 * Maximum time that ingestion waits for the comparison of the archive with a changed Redis server. A comparison takes a
 * second; restoring half a million lost records takes about this long.
 */
const GATE_TIMEOUT_MS = 15_000;

export interface LedgerServerDeps {
  readonly redis: Redis;
  readonly keys: Keys;
}

/** The Redis server that stores the ledger. Its id changes with each restart and each failover. */
export class LedgerServer {
  readonly #deps: LedgerServerDeps;

  constructor(deps: LedgerServerDeps) {
    this.#deps = deps;
  }

  /**
   * Returns the id of the server, whether the archive has agreed with its ledger, and its time in milliseconds since
   * the epoch.
   * @throws RedisUnavailable
   */
  async identify(): Promise<{ serverId: string; agreed: boolean; now: number }> {
    const [serverId, agreed, now] = await identifyServer.run(this.#deps.redis, [this.#deps.keys.ledgerState], []);
    return { serverId, agreed: serverId === agreed, now };
  }

  /**
   * Stores that the archive contains no record that the ledger of this server lacks. It does nothing if Redis has
   * become another server.
   */
  async agree(serverId: string): Promise<void> {
    await agreeWithServer.run(this.#deps.redis, [this.#deps.keys.ledgerState], [serverId]);
  }
}

export interface LedgerGateDeps {
  readonly server: LedgerServer;
  readonly clock: Clock;
}

/**
 * Pauses ingestion while the ledger of a changed Redis server has not been compared with the archive. Lost records can
 * be restored unchanged only until other records occupy their sequences. The pause is at most `timeoutMs`: an
 * unavailable archive must not block billing.
 */
export class LedgerGate {
  readonly #deps: LedgerGateDeps;
  readonly #timeoutMs: number;
  /** The server whose comparison is pending, and the start of the wait. */
  #waiting: { readonly serverId: string; readonly since: number } | undefined;

  constructor(deps: LedgerGateDeps, { timeoutMs = GATE_TIMEOUT_MS }: { readonly timeoutMs?: number } = {}) {
    this.#deps = deps;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Returns whether ingestion may run.
   * @throws RedisUnavailable
   */
  async isOpen(): Promise<boolean> {
    const { serverId, agreed } = await this.#deps.server.identify();
    if (agreed) {
      this.#waiting = undefined;
      return true;
    }
    if (this.#waiting?.serverId !== serverId) this.#waiting = { serverId, since: this.#deps.clock.now() };
    return this.#deps.clock.now() - this.#waiting.since >= this.#timeoutMs;
  }
}
