import { type Clock, remainingUntil } from '../lib/clock.ts';

const WINDOW_MS = 60_000;
/** The first time out; each further one is twice as long. */
const FIRST_BLOCK_MS = 60_000;
/** No longer than this: addresses change hands, and a page with an old token is no attack. */
const LONGEST_BLOCK_MS = 15 * 60_000;
/** An address that has been good for this long begins anew. */
const RESET_AFTER_MS = 15 * 60_000;
/**
 * Addresses remembered, some 2 MB. Beyond it the one that failed longest ago is forgotten: an attack from more addresses
 * than this gets readable refusals for longer than it should, and never the node's memory.
 */
const MAX_ADDRESSES = 10_000;

interface History {
  /** In the current window. */
  failures: number;
  /** Milliseconds of long tasks in the current window. */
  blockedMs: number;
  windowEndsAt: number;
  /** How often it went over the bound without being forgiven. */
  violations: number;
  blockedUntil: number;
}

export interface AuthFailuresOptions {
  /** Failures of an address within a minute that close it. */
  readonly perMinute: number;
  /** Milliseconds of long tasks within a minute that close it; `Infinity` for no bound. */
  readonly blockingMsPerMinute: number;
}

/**
 * Failed handshakes and long tasks by address, on this node alone: a cluster of N allows an address N times as many, and asks Redis
 * nothing when it is shouted at. An address is `open`; `perMinute` failures within a minute make it `closed` for a while,
 * as does `blockingMsPerMinute` of the event loop's time in long tasks, and as many again, while it is closed or later, for twice as long. Closed, it is not shut out: what it presents is
 * looked at before anything else, and only what is good comes in.
 */
export class AuthFailureLimiter {
  readonly #clock: Clock;
  readonly #options: AuthFailuresOptions;
  /** In the order of the last failure. */
  readonly #records = new Map<string, History>();

  constructor({ clock }: { clock: Clock }, options: AuthFailuresOptions) {
    this.#clock = clock;
    this.#options = options;
  }

  /** Addresses that are remembered. */
  get size(): number {
    return this.#records.size;
  }

  /** Milliseconds for which the address is closed; 0 when it is open. */
  blockedForMs(address: string): number {
    const record = this.#records.get(address);
    return record ? remainingUntil(this.#clock, record.blockedUntil, LONGEST_BLOCK_MS) : 0;
  }

  /** Counts one failed handshake. */
  recordFailure(address: string): void {
    const now = this.#clock.now();
    const record = this.#recordOf(address, now);
    record.failures += 1;
    if (record.failures >= this.#options.perMinute) close(record, now);
  }

  /** Counts a long task that the input of an address caused. */
  blocked(address: string, ms: number): void {
    const now = this.#clock.now();
    const record = this.#recordOf(address, now);
    record.blockedMs += ms;
    if (record.blockedMs >= this.#options.blockingMsPerMinute) close(record, now);
  }

  /** The record of an address, as the last one in line, with a window that is not over. */
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

/** Closes an address, twice as long each further time, and begins a new window. */
function close(record: History, now: number): void {
  const blockMs = Math.min(FIRST_BLOCK_MS * 2 ** record.violations, LONGEST_BLOCK_MS);
  Object.assign(record, freshWindow(now), { violations: record.violations + 1, blockedUntil: now + blockMs });
}
