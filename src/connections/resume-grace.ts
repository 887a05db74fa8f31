import type { Clock } from '../lib/clock.ts';
import { RESUME_GRACE_MS } from './limits.ts';

/** Live events of a new session wait for the resume that is announced, or a moment for one that may come. */
export class ResumeGrace {
  readonly #clock: Clock;
  #end: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param resumes the client said at the handshake that it resumes */
  start(release: () => void, resumes: boolean): void {
    const cancel = resumes ? () => {} : this.#clock.after(RESUME_GRACE_MS, () => this.end());
    this.#end = () => {
      cancel();
      release();
    };
  }

  /** Nobody waits for a resume any more. */
  end(): void {
    this.#end?.();
    this.#end = undefined;
  }
}
