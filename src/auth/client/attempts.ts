import { bulkhead, isBulkheadRejectedError } from 'cockatiel';
import { Breaker, BreakerOpenError, type BreakerState } from '../../lib/breaker.ts';
import type { Clock } from '../../lib/clock.ts';
import { TollgateError } from '../../protocol/errors.ts';
import { Fault } from './fault.ts';
import { Http, type HttpAnswer, type HttpRequest } from './http.ts';

/**
 * Requests under way at once. With five failures to open the breaker, a service that hangs has been asked ten times at
 * most before it does: these six, and one more after each of the first four failures.
 */
const CONCURRENT = 6;
/** Those that wait for one of them; they wait no longer than their caller does. */
const WAITING = 256;

export interface AttemptOptions {
  readonly timeoutMs: number;
  readonly onBreakerChange: (state: BreakerState) => void;
}

/**
 * Single requests to the auth service, through one breaker for all of them. One that has begun goes on to its end or its
 * timeout, whoever has stopped waiting for it: how it ends is what the breaker has to know.
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
   * @param read what comes of an answer; a Fault it throws counts against the service as one of the transport does
   * @param over takes a request back that still waits for its turn
   * @throws Fault, TollgateError AUTH_CIRCUIT_BREAKER_OPEN, AUTH_SERVICE_UNAVAILABLE when too many wait
   */
  async send<T>(request: HttpRequest, read: (answer: HttpAnswer) => T, over?: AbortSignal): Promise<T> {
    const call = async () => read(await this.#http.send(request));
    try {
      return await this.#bulkhead.execute(() => this.#breaker.run(call), over);
    } catch (cause) {
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
