import { Agent, type Response, fetch as undiciFetch } from 'undici';
import type { RemoteSettings } from '../../catalogue/remote-agents.ts';
import { type Breaker, BreakerOpenError } from '../../lib/breaker.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Tracing } from '../../lib/tracing.ts';
import { RemoteBody } from './body.ts';
import type { Budget } from './budget.ts';
import { faultOf, RemoteFault, statusFault } from './fault.ts';

const CONNECT_TIMEOUT_MS = 5_000;
/** Connections in addition to those of runs, for cancellations. */
const SPARE_CONNECTIONS = 4;

export interface RemoteClientDeps {
  readonly clock: Clock;
  readonly tracing: Pick<Tracing, 'traceParent'>;
  /** Circuit breaker of the server; agents at one origin share it. */
  readonly breaker: Breaker;
}

export interface RemoteAddress {
  readonly url: string;
  /** Include credentials; must not be logged. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface RemoteRequest {
  readonly method?: 'GET' | 'POST';
  /** Default: the address of the agent. Must have the same origin. */
  readonly url?: string;
  readonly accept: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** The limits of one run that apply to a request. */
export interface RequestScope {
  readonly signal: AbortSignal;
  readonly budget: Budget;
}

/**
 * HTTP client of one remote agent: bounded in connections, time, and size of what it reads. It follows no redirects and
 * sends the credentials of the agent to its own origin only.
 */
export class RemoteClient {
  readonly #deps: RemoteClientDeps;
  readonly #address: RemoteAddress;
  readonly #settings: RemoteSettings;
  readonly #agent: Agent;

  constructor(deps: RemoteClientDeps, address: RemoteAddress, settings: RemoteSettings) {
    this.#deps = deps;
    this.#address = address;
    this.#settings = settings;
    this.#agent = new Agent({
      connections: settings.concurrency + SPARE_CONNECTIONS,
      connect: { timeout: CONNECT_TIMEOUT_MS },
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /** Returns an address on the server of the agent. @throws RemoteFault refused for another origin */
  resolve(url: string): string {
    const resolved = URL.canParse(url, this.#address.url) ? new URL(url, this.#address.url) : undefined;
    if (resolved?.origin === new URL(this.#address.url).origin) return resolved.href;
    throw new RemoteFault('invalid', 'the agent names an address at another origin');
  }

  /**
   * Sends a request and waits for the head of the response.
   * @throws RemoteFault for an error status or a failure; the reason of an aborted signal
   */
  async open(request: RemoteRequest, { signal, budget }: RequestScope): Promise<RemoteBody> {
    const { clock, breaker } = this.#deps;
    const abort = new AbortController();
    let isLate = false;
    const cancel = clock.after(this.#settings.response_seconds * 1_000, () => {
      isLate = true;
      abort.abort();
    });
    try {
      return await breaker.run(async () => {
        try {
          const response = await this.#send(request, AbortSignal.any([signal, abort.signal]));
          if (!response.ok) throw statusFault(response.status, response.headers);
          const idleMs = this.#settings.idle_seconds * 1_000;
          const onFault = (fault: RemoteFault) => void this.#report(fault);
          return new RemoteBody({ clock, signal, abort, budget, onFault }, response, idleMs);
        } catch (thrown) {
          signal.throwIfAborted();
          throw isLate ? new RemoteFault('timeout', 'no response within response_seconds') : faultOf(thrown);
        }
      });
    } catch (thrown) {
      abort.abort();
      if (!(thrown instanceof BreakerOpenError)) throw thrown;
      throw new RemoteFault('breaker_open', 'the circuit breaker is open', { retryAfterMs: thrown.retryAfterMs });
    } finally {
      cancel();
    }
  }

  /** Closes all connections. Requests in flight fail. */
  close(): Promise<void> {
    return this.#agent.destroy();
  }

  #send({ method = 'POST', url, accept, headers, body }: RemoteRequest, signal: AbortSignal): Promise<Response> {
    const { traceParent } = this.#deps.tracing;
    return undiciFetch(url ?? this.#address.url, {
      method,
      headers: {
        accept,
        // No compression: a small compressed body can become arbitrarily large in memory.
        'accept-encoding': 'identity',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...this.#address.headers,
        ...headers,
        ...(traceParent === undefined ? {} : { traceparent: traceParent }),
      },
      ...(body === undefined ? {} : { body }),
      redirect: 'manual',
      signal,
      dispatcher: this.#agent,
    });
  }

  /** Counts a fault within a body; the breaker has seen only the head. */
  async #report(fault: RemoteFault): Promise<void> {
    if (fault.isOfServer) await this.#deps.breaker.run(() => Promise.reject(fault)).catch(() => undefined);
  }
}
