import { CircuitState, CountBreaker, circuitBreaker, handleWhen, type IBackoff } from 'cockatiel';
import { type Clock, remainingUntil } from './clock.ts';

/**
 * The breaker opens if more than four of the last ten calls failed and at least five calls were made. It opens at the
 * fifth failure of a service that is down from the start, and after five failures of one that worked until now. Three
 * failures among successes do not open it.
 */
const WINDOW = { threshold: 0.4, size: 10, minimumNumberOfCalls: 5 };
/** Rest period between opening and the probe: short compared to an outage, long compared to a call. */
const REST_MS = 5_000;

export type BreakerState = 'closed' | 'half_open' | 'open';
/** The states as the metrics report them. */
export const BREAKER_STATE_NUMBERS: Readonly<Record<BreakerState, number>> = { closed: 0, half_open: 1, open: 2 };

/** Thrown instead of making a call. */
export class BreakerOpenError extends Error {
  /** Minimum time until the next call is possible. */
  readonly retryAfterMs: number;

  constructor(retryAfterMs: number) {
    super('the breaker is open');
    this.name = 'BreakerOpenError';
    this.retryAfterMs = retryAfterMs;
  }
}

export interface BreakerOptions {
  /** Whether an error is a failure of the service. Any other error counts as a response of a healthy service. */
  readonly isFault: (error: unknown) => boolean;
  /**
   * Whether an error carries no information about the service, for example because the caller gave up. As the outcome
   * of a probe, such an error leaves the breaker open.
   */
  readonly saysNothing?: (error: unknown) => boolean;
  readonly onChange: (state: BreakerState) => void;
}

/** Outcome of a probe without information about the service. */
class Unanswered extends Error {}

/**
 * Circuit breaker: stops calls to a failing service. closed → open after too many faults; open → half_open with the
 * first call after the rest period, the probe; half_open → closed or open with the outcome of the probe. Other calls
 * are rejected during the probe.
 *
 * cockatiel counts the calls, but it only supports the system clock. It requests the rest duration on each call; the
 * answer is infinite during the rest period of `Clock` and negative infinity after it.
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

  /** @throws BreakerOpenError without calling; otherwise the error of `call` */
  async run<T>(call: () => Promise<T>): Promise<T> {
    const remainingMs = remainingUntil(this.#clock, this.#restsUntil, REST_MS);
    const { state } = this;
    if (state === 'open' && remainingMs > 0) throw new BreakerOpenError(remainingMs);
    // cockatiel would make other calls wait for the outcome of the probe; they fail at once instead.
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
