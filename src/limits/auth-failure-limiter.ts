import { type Clock, remainingUntil } from '../lib/clock.ts';

const WINDOW_MS = 60_000;
/** Duration of the first block; each further block is twice as long. */
const FIRST_BLOCK_MS = 60_000;
/** Longest block. Bounded because addresses change owners, and a page with an old token is not an attack. */
const LONGEST_BLOCK_MS = 15 * 60_000;
/** After this time without a failure, the history of an address is cleared. */
const RESET_AFTER_MS = 15 * 60_000;
/**
 * Stored addresses, some 2 MB. Above it the limiter drops the address with the oldest failure: an attack from more
 * addresses is blocked later than it should be, but cannot exhaust the node's memory.
 */
const MAX_ADDRESSES = 10_000;

interface History {
  /** In the current window. */
  failures: number;
  /** Milliseconds of long tasks in the current window. */
  blockedMs: number;
  windowEndsAt: number;
  /** Number of blocks since the history was last cleared. */
  violations: number;
  blockedUntil: number;
}

export interface AuthFailuresOptions {
  /** Failures within a minute that block an address. */
  readonly perMinute: number;
  /** Milliseconds of long tasks within a minute that block an address; `Infinity` for no bound. */
  readonly blockingMsPerMinute: number;
}

/**
 * Counts failed authentications and long tasks per client address and blocks addresses above the limit.
 *
 * An address is blocked after `perMinute` failures or `blockingMsPerMinute` of long tasks within a minute. The same
 * amount again, during the block or later, blocks it for twice as long. A blocked address can still connect with a
 * valid credential: the connection guard verifies the credential in the handshake first.
 *
 * The counts are per node: a flood causes no Redis commands, and a cluster of N nodes allows an address N times as many
 * failures.
 */
export class AuthFailureLimiter {
  readonly #clock: Clock;
  readonly #options: AuthFailuresOptions;
  /** In order of the last failure. */
  readonly #records = new Map<string, History>();

  constructor({ clock }: { clock: Clock }, options: AuthFailuresOptions) {
    this.#clock = clock;
    this.#options = options;
  }

  /** Number of stored addresses. */
  get size(): number {
    return this.#records.size;
  }

  /** Returns the remaining block of an address in milliseconds; 0 when it is not blocked. */
  blockedForMs(address: string): number {
    const record = this.#records.get(address);
    return record ? remainingUntil(this.#clock, record.blockedUntil, LONGEST_BLOCK_MS) : 0;
  }

  /** Counts one failed authentication. */
  recordFailure(address: string): void {
    const now = this.#clock.now();
    const record = this.#recordOf(address, now);
    record.failures += 1;
    if (record.failures >= this.#options.perMinute) close(record, now);
  }

  /** Counts a long task that input from the address caused. */
  blocked(address: string, ms: number): void {
    const now = this.#clock.now();
    const record = this.#recordOf(address, now);
    record.blockedMs += ms;
    if (record.blockedMs >= this.#options.blockingMsPerMinute) close(record, now);
  }

  /** Moves the record of an address to the end of the map and starts a new window if the current one has ended. */
  #recordOf(address: string, now: number): History {
    const existing = this.#records.get(address);
    this.#records.delete(address);
    if (existing && now < Math.max(existing.windowEndsAt, existing.blockedUntil) + RESET_AFTER_MS) {
      if (now >= existing.windowEndsAt) Object.assign(existing, freshWindow(now));
      this.#records.set(address, existing);
      return existing;
    }
    this.#forgetOldest();
    const fresh = { ...freshWindow(now), violations: 0, blockedUntil: 0 };
    this.#records.set(address, fresh);
    return fresh;
  }

  #forgetOldest(): void {
    if (this.#records.size < MAX_ADDRESSES) return;
    for (const address of this.#records.keys()) {
      this.#records.delete(address);
      return;
    }
  }
}

function freshWindow(now: number) {
  return { failures: 0, blockedMs: 0, windowEndsAt: now + WINDOW_MS };
}

/** Blocks an address, twice as long as the last time, and starts a new window. */
function close(record: History, now: number): void {
  const blockMs = Math.min(FIRST_BLOCK_MS * 2 ** record.violations, LONGEST_BLOCK_MS);
  Object.assign(record, freshWindow(now), { violations: record.violations + 1, blockedUntil: now + blockMs });
}
