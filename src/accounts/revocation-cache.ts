import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Subject } from './invalidations.ts';
import { subjectsOf } from './revocations.ts';

/** About 30 MB. 100 logouts per second with tokens valid for five minutes need 60,000. */
const MAX_REVOCATIONS = 250_000;
/** Expiry times are on the clock of Redis; the clock of a node may be ahead by this much. */
const CLOCK_DIFFERENCE_MS = 60_000;

export interface RevocationCacheDeps {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** In-memory copy of the active revocations, so that a check costs no round trip. */
export class RevocationCache {
  readonly #deps: RevocationCacheDeps;
  /** Time after which a revocation may be dropped, in order of receipt. */
  readonly #until = new Map<Subject, number>();
  #overflowed = false;

  constructor(deps: RevocationCacheDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#until.size;
  }

  has(identity: { readonly tokenId: string; readonly sessionId?: string | undefined }): boolean {
    return this.#until.size > 0 && subjectsOf(identity).some((subject) => this.#until.has(subject));
  }

  add(subject: Subject, untilMs: number): void {
    this.#until.set(subject, Math.max(untilMs, this.#until.get(subject) ?? 0));
    if (this.#until.size <= MAX_REVOCATIONS) return;
    this.removeExpired();
    if (this.#until.size <= MAX_REVOCATIONS) return;
    const [oldest] = this.#until.keys();
    if (oldest !== undefined) this.#until.delete(oldest);
    // This node no longer rejects the dropped token. Logged once, so that an operator can react.
    if (!this.#overflowed)
      this.#deps.logger.error({ most: MAX_REVOCATIONS }, 'too many revocations, dropping the oldest');
    this.#overflowed = true;
  }

  removeExpired(): void {
    const now = this.#deps.clock.now() - CLOCK_DIFFERENCE_MS;
    for (const [subject, untilMs] of this.#until) if (untilMs <= now) this.#until.delete(subject);
  }
}
