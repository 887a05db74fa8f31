import { bulkhead, isBulkheadRejectedError } from 'cockatiel';
import { Breaker, BreakerOpenError, type BreakerState } from '../../lib/breaker.ts';
import type { Clock } from '../../lib/clock.ts';
import { TollgateError } from '../../protocol/errors.ts';
import { Fault } from './fault.ts';
import { Http, type HttpAnswer, type HttpRequest } from './http.ts';

/** A request that records whether the service may have acted on it. */
interface TrackedRequest extends HttpRequest {
  readonly delivery?: { mayHaveActed: boolean } | undefined;
}

/**
 * Concurrent requests. Five failures open the breaker, so a hanging service receives at most ten requests before that:
 * these six, and one more after each of the first four failures.
 */
const CONCURRENT = 6;
/** Queued requests. A request leaves the queue when its caller stops waiting. */
const WAITING = 256;

export interface AttemptOptions {
  readonly timeoutMs: number;
  readonly onBreakerChange: (state: BreakerState) => void;
}

/**
 * Sends single requests to the auth service through one shared circuit breaker. A request that has started continues to
 * its end or its timeout even if its caller stops waiting, because the breaker needs its outcome.
 */
export class Attempts {
  readonly #http: Http;
  readonly #breaker: Breaker;
  readonly #bulkhead = bulkhead(CONCURRENT, WAITING);

  constructor({ clock }: { clock: Clock }, { timeoutMs, onBreakerChange }: AttemptOptions) {
    this.#http = new Http({ clock }, { timeoutMs, connections: CONCURRENT });
    this.#breaker = new Breaker({ clock }, { isFault: (error) => error instanceof Fault, onChange: onBreakerChange });
  }

  get breaker(): BreakerState {
    return this.#breaker.state;
  }

  /**
   * @param read converts the response; a Fault that it throws counts for the breaker like one of the transport
   * @param over removes a request that is still queued
   * @throws Fault; TollgateError AUTH_CIRCUIT_BREAKER_OPEN, or AUTH_SERVICE_UNAVAILABLE if the queue is full
   */
  async send<T>(
    { delivery, ...request }: TrackedRequest,
    read: (answer: HttpAnswer) => T,
    over?: AbortSignal,
  ): Promise<T> {
    const call = async () => {
      if (delivery) delivery.mayHaveActed = true;
      return read(await this.#http.send(request));
    };
    try {
      return await this.#bulkhead.execute(() => this.#breaker.run(call), over);
    } catch (cause) {
      if (delivery && cause instanceof Fault && cause.repeatable === 'always') delivery.mayHaveActed = false;
      if (cause instanceof BreakerOpenError) {
        throw new TollgateError('AUTH_CIRCUIT_BREAKER_OPEN', { cause, retryAfterMs: cause.retryAfterMs });
      }
      if (isBulkheadRejectedError(cause)) throw new TollgateError('AUTH_SERVICE_UNAVAILABLE', { cause });
      throw cause;
    }
  }

  close(): Promise<void> {
    return this.#http.close();
  }
}
