import type { Clock } from '../lib/clock.ts';
import { RESUME_GRACE_MS } from './limits.ts';

/**
 * Delays the live events of a new attachment: until the resume that the handshake requested, or for `RESUME_GRACE_MS`
 * in case a `resume` message follows.
 */
export class ResumeGrace {
  readonly #clock: Clock;
  #end: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param resumes whether the handshake contains a resume position */
  start(release: () => void, resumes: boolean): void {
    const cancel = resumes ? () => {} : this.#clock.after(RESUME_GRACE_MS, () => this.end());
    this.#end = () => {
      cancel();
      release();
    };
  }

  /** Delivers the waiting events; called when no resume can follow or the connection closes. */
  end(): void {
    this.#end?.();
    this.#end = undefined;
  }
}
