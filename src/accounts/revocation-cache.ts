import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Subject } from './invalidations.ts';
import { subjectsOf } from './revocations.ts';

/** About 30 MB. Logging out a hundred times a second with tokens of five minutes makes 60,000. */
const MAX_REVOCATIONS = 250_000;
/** Ends are told in Redis's time; a node's clock may be ahead by this much. */
const CLOCK_DIFFERENCE_MS = 60_000;

/** The revocations that this node has heard of and that still matter, so that asking costs no round trip. */
export class RevocationCache {
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** By the time after which it may be forgotten; the ones heard of first come first. */
  readonly #until = new Map<Subject, number>();
  #overflowed = false;

  constructor({ clock, logger }: { clock: Clock; logger: Logger }) {
    this.#clock = clock;
    this.#logger = logger;
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
    // A token that is let go is refused by nobody here any more: an operator has to know, once.
    if (!this.#overflowed)
      this.#logger.error({ most: MAX_REVOCATIONS }, 'too many revocations: the oldest are forgotten');
    this.#overflowed = true;
  }

  removeExpired(): void {
    const now = this.#clock.now() - CLOCK_DIFFERENCE_MS;
    for (const [subject, untilMs] of this.#until) if (untilMs <= now) this.#until.delete(subject);
  }
}
