import { CircuitState, CountBreaker, circuitBreaker, handleWhen, type IBackoff } from 'cockatiel';
import { type Clock, remainingUntil } from './clock.ts';

/**
 * Of the last ten calls more than four have failed, and five at least are known: a service that is dead from the start
 * is left alone after its fifth failure, one that answered until now after five too, and three failures among successes
 * change nothing.
 */
const WINDOW = { threshold: 0.4, size: 10, minimumNumberOfCalls: 5 };
/** From the opening to the one call that finds out whether to close: short beside an outage, long beside a call. */
const REST_MS = 5_000;

export type BreakerState = 'closed' | 'half_open' | 'open';

/** In place of a call that was not made. */
export class BreakerOpenError extends Error {
  /** Until a call can be made again, at the earliest. */
  readonly retryAfterMs: number;

  constructor(retryAfterMs: number) {
    super('the breaker is open');
    this.name = 'BreakerOpenError';
    this.retryAfterMs = retryAfterMs;
  }
}

export interface BreakerOptions {
  /** Whether an error speaks against the service that was called. Any other one is an answer of a healthy service. */
  readonly isFault: (error: unknown) => boolean;
  /**
   * Whether an error that is no fault says nothing of the service either: whoever called has given up. As the outcome of the
   * call that finds out whether to close, it leaves the breaker open.
   */
  readonly saysNothing?: (error: unknown) => boolean;
  readonly onChange: (state: BreakerState) => void;
}

/** The outcome of a probe that found nothing out. */
class Unanswered extends Error {}

/**
 * Stops calling a service that fails. closed → open after too many faults; open → half_open with the first call after a
 * rest; half_open → closed or open with the outcome of that call, beside which no other is made.
 *
 * The counting is cockatiel's, which knows only the time of the process. It asks how long to rest each time it is
 * called, and so gets its answer from our clock: for ever while the rest lasts, and no time at all after it.
 */
export class Breaker {
  readonly #clock: Clock;
  readonly #policy: ReturnType<typeof circuitBreaker>;
  readonly #saysNothing: (error: unknown) => boolean;
  #restsUntil = 0;

  constructor({ clock }: { clock: Clock }, { isFault, saysNothing = () => false, onChange }: BreakerOptions) {
    this.#clock = clock;
    this.#saysNothing = (error) => !isFault(error) && saysNothing(error);
    const counts = (error: unknown) => error instanceof Unanswered || isFault(error);
    this.#policy = circuitBreaker(handleWhen(counts), {
      breaker: new CountBreaker(WINDOW),
      halfOpenAfter: { next: () => this.#rest() },
    });
    this.#policy.onStateChange((state) => onChange(nameOf(state)));
  }

  get state(): BreakerState {
    return nameOf(this.#policy.state);
  }

  /** @throws BreakerOpenError without calling; else whatever `call` throws */
  async run<T>(call: () => Promise<T>): Promise<T> {
    const remainingMs = remainingUntil(this.#clock, this.#restsUntil, REST_MS);
    const { state } = this;
    if (state === 'open' && remainingMs > 0) throw new BreakerOpenError(remainingMs);
    // cockatiel would let the others wait for the outcome; they have something better to do.
    if (state === 'half_open') throw new BreakerOpenError(REST_MS);
    return state === 'open' ? this.#probe(call) : this.#policy.execute(call);
  }

  async #probe<T>(call: () => Promise<T>): Promise<T> {
    const probe = async () => {
      try {
        return await call();
      } catch (error) {
        throw this.#saysNothing(error) ? new Unanswered('given up', { cause: error }) : error;
      }
    };
    try {
      return await this.#policy.execute(probe);
    } catch (error) {
      throw error instanceof Unanswered ? error.cause : error;
    }
  }

  #rest(): IBackoff<unknown> {
    this.#restsUntil = this.#clock.now() + REST_MS;
    const durationMs = () =>
      remainingUntil(this.#clock, this.#restsUntil, REST_MS) > 0 ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
    return {
      get duration() {
        return durationMs();
      },
      next: () => this.#rest(),
    };
  }
}

function nameOf(state: CircuitState): BreakerState {
  if (state === CircuitState.Closed) return 'closed';
  return state === CircuitState.HalfOpen ? 'half_open' : 'open';
}
