import type { LiveTail, TailListener } from '../../events/live-tail.ts';
import type { Clock } from '../../lib/clock.ts';
import { InFlight } from '../../mcp/in-flight.ts';
import { isTerminalEvent } from '../../protocol/messages.ts';
import { eventOf } from '../run-events.ts';

/**
 * Requests that wait until a run has ended or needs input of its user. A wait ends without it after its time, when the
 * client disconnects, and when the node drains; the run continues.
 */
export class RunWaits {
  readonly #deps: { readonly liveTail: Pick<LiveTail, 'listen' | 'leave'>; readonly clock: Clock };
  readonly #inFlight = new InFlight({ name: 'requests that wait for a run' });
  readonly #stops = new Set<() => void>();
  #draining = false;

  constructor(deps: { readonly liveTail: Pick<LiveTail, 'listen' | 'leave'>; readonly clock: Clock }) {
    this.#deps = deps;
  }

  /**
   * Resolves when a run has ended or needs input, or without it as above.
   * @param wait.isDone read once, after the subscription: the run may have ended before it
   * @throws TollgateError RATE_LIMITED, OVERLOADED
   */
  async untilDone(
    userId: string,
    runId: string,
    wait: { readonly forMs: number; readonly signal: AbortSignal; readonly isDone: () => Promise<boolean> },
  ): Promise<void> {
    const leave = this.#inFlight.enter(userId);
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#deps.clock.after(wait.forMs, resolve);
    this.#stops.add(resolve);
    wait.signal.addEventListener('abort', () => resolve(), { once: true });
    if (wait.signal.aborted || this.#draining) resolve();
    const check = () => {
      wait.isDone().then(
        (done) => done && resolve(),
        () => undefined,
      );
    };
    const listener: TailListener = {
      onEntry: (entry) => {
        const isAwaited = isTerminalEvent(entry.type) || entry.type === 'input_requested';
        if (isAwaited && eventOf(runId, entry)) resolve();
      },
      onControl: () => undefined,
      onGap: check,
    };
    try {
      await this.#deps.liveTail.listen(userId, listener);
      check();
      await promise;
    } finally {
      this.#deps.liveTail.leave(userId, listener);
      cancel();
      this.#stops.delete(resolve);
      leave();
    }
  }

  /** Ends all waits, and later ones at once. */
  drain(): void {
    this.#draining = true;
    for (const stop of this.#stops) stop();
  }
}
