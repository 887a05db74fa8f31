import type { Config } from '../../config.ts';
import { BREAKER_STATE_NUMBERS, type BreakerState } from '../../lib/breaker.ts';
import { type Clock, elapsedSince, sleep } from '../../lib/clock.ts';
import type { Logger } from '../../lib/logger.ts';
import type { Metrics } from '../../lib/metrics.ts';
import { RetryBudget } from '../../lib/retry-budget.ts';
import type { Tracing } from '../../lib/tracing.ts';
import { withDeadline } from '../../lib/with-deadline.ts';
import { TollgateError } from '../../protocol/errors.ts';
import {
  ClientRefused,
  type Introspected,
  type IssuedToken,
  isRefusal,
  readIntrospection,
  readRefusal,
  readToken,
} from './answers.ts';
import { Attempts } from './attempts.ts';
import { Fault } from './fault.ts';
import type { HttpAnswer } from './http.ts';
import { Metadata } from './metadata.ts';

export { type Introspected, type IssuedToken, isRefusal };

/** Timeout of one call including its retries. A handshake that waits for it has ten seconds in total. */
export const AUTH_SERVICE_TIMEOUT_MS = 2_000;
const MAX_ATTEMPTS = 3;
/** Upper bound of the first pause, doubled with each attempt. Full jitter: the pause is between 0 and the bound. */
const FIRST_PAUSE_MS = 50;
/** Minimum interval between error log lines, so that an outage does not flood the log. */
const LOG_EVERY_MS = 60_000;

/** Kinds of refusals that are logged. The error codes come from the service, so their number needs a bound. */
const MAX_REPORTED = 32;

const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

export interface AuthServiceDeps {
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

export interface AuthServiceOptions {
  readonly url: string;
  readonly issuer: string;
  /** Undefined for a public client, which names itself in the request (RFC 6749 section 3.2.1). */
  readonly serviceSecret: string | undefined;
  /** Refresh tokens are bound to the client id, so all processes of a deployment must use the same one. */
  readonly clientId?: string;
  /** Timeout of one call including its retries. */
  readonly timeoutMs?: number;
  /**
   * Set for a provider of `IDENTITY_PROVIDERS`: see `Metadata`. The metrics of the breaker are those of the auth
   * service.
   */
  readonly isProvider?: boolean;
}

/** Options that are the same in every process of a deployment. */
export function authServiceOptions(config: Config): AuthServiceOptions {
  const { AUTH_SERVICE_URL: url, JWT_ISSUER: issuer, SERVICE_SECRET: serviceSecret, AUTH_CLIENT_ID: clientId } = config;
  return { url, issuer, serviceSecret, clientId };
}

interface Operation<T> {
  readonly name: 'exchange' | 'refresh' | 'introspect';
  readonly endpoint: 'token' | 'introspection';
  readonly form: Readonly<Record<string, string>>;
  /** Whether the service may execute the operation twice. */
  readonly idempotent: boolean;
  /** @throws Fault */
  readonly read: (json: unknown, sentAt: number) => T;
  readonly delivery?: Delivery | undefined;
}

/** Reports whether the service may have acted on a request. */
export interface Delivery {
  /** False while no request was sent, and after an answer that the service has not acted. */
  mayHaveActed: boolean;
}

/**
 * Client of the OAuth 2.0 server. Every operation ends within `timeoutMs`. A failed one throws a TollgateError: a
 * rejection of the token (`isRefusal`), or AUTH_SERVICE_UNAVAILABLE, AUTH_SERVICE_TIMEOUT, AUTH_CIRCUIT_BREAKER_OPEN
 * or INVALID_RESPONSE_FORMAT, which do not concern the token. If `signal` is aborted, its reason is thrown.
 */
export class AuthServiceClient {
  readonly #deps: AuthServiceDeps;
  readonly #timeoutMs: number;
  readonly #clientId: string;
  readonly #authorization: string | undefined;
  readonly #attempts: Attempts;
  readonly #metadata: Metadata;
  readonly #budget: RetryBudget;
  #loggedAt = Number.NEGATIVE_INFINITY;
  readonly #isProvider: boolean;
  readonly #reported = new Set<string>();

  constructor(deps: AuthServiceDeps, options: AuthServiceOptions) {
    const { clock, logger } = deps;
    const {
      url,
      issuer,
      serviceSecret,
      clientId = 'tollgate',
      timeoutMs = AUTH_SERVICE_TIMEOUT_MS,
      isProvider = false,
    } = options;
    this.#deps = deps;
    this.#timeoutMs = timeoutMs;
    this.#clientId = clientId;
    this.#authorization = serviceSecret === undefined ? undefined : basic(clientId, serviceSecret);
    this.#attempts = new Attempts({ clock }, { timeoutMs, onBreakerChange: (state) => this.#breakerChanged(state) });
    const attempts = this.#attempts;
    this.#metadata = new Metadata(
      { clock, logger, fetch: (at, read) => attempts.send({ url: at }, read) },
      { url, issuer, anyHost: isProvider },
    );
    this.#isProvider = isProvider;
    this.#budget = new RetryBudget({ clock });
    if (!isProvider) deps.metrics.authBreaker.set(BREAKER_STATE_NUMBERS.closed);
  }

  /** State of the circuit breaker. It stays open until the first call after its rest period, which is the probe. */
  get breaker(): BreakerState {
    return this.#attempts.breaker;
  }

  /**
   * Whether the metadata of the service lists the exchange of tokens. @throws Fault, BreakerOpenError without metadata
   */
  async canExchange(): Promise<boolean> {
    return (await this.#metadata.endpoints()).grants?.includes(TOKEN_EXCHANGE) ?? false;
  }

  /** Exchanges a token for the next access token of its session (RFC 8693). */
  exchange(subjectToken: string, signal?: AbortSignal): Promise<IssuedToken> {
    const form = {
      grant_type: TOKEN_EXCHANGE,
      subject_token: subjectToken,
      subject_token_type: ACCESS_TOKEN,
      requested_token_type: ACCESS_TOKEN,
    };
    return this.#request({ name: 'exchange', endpoint: 'token', form, idempotent: true, read: readToken }, signal);
  }

  /**
   * Gets new tokens for a refresh token (RFC 6749 section 6). If refresh tokens rotate, the service has already used
   * up the old token when its response is lost, and a second use can end the session (RFC 9700 section 4.14.2). The
   * client therefore resends the token only if the service has certainly not received it. Some services return the
   * same successor for a while; the reference service does so for 30 s. With such a service, the caller may call
   * again after any failure other than a rejection.
   * @param delivery set to whether the service may have used up the token, also if the call fails
   */
  refresh(refreshToken: string, signal?: AbortSignal, delivery?: Delivery): Promise<IssuedToken> {
    const form = { grant_type: 'refresh_token', refresh_token: refreshToken };
    const operation = {
      name: 'refresh',
      endpoint: 'token',
      form,
      idempotent: false,
      read: readToken,
      delivery,
    } as const;
    return this.#request(operation, signal);
  }

  /** Returns the claims of a token, or undefined if it is not active (RFC 7662). */
  introspect(token: string, signal?: AbortSignal): Promise<Introspected | undefined> {
    const form = { token, token_type_hint: 'access_token' };
    const read = readIntrospection;
    return this.#request({ name: 'introspect', endpoint: 'introspection', form, idempotent: true, read }, signal);
  }

  /** Closes the client; requests in flight fail. */
  close(): Promise<void> {
    return this.#attempts.close();
  }

  async #request<T>(operation: Operation<T>, signal: AbortSignal | undefined): Promise<T> {
    const { clock, metrics } = this.#deps;
    const startedAt = clock.now();
    const timeoutError = () => new TollgateError('AUTH_SERVICE_TIMEOUT');
    let result = 'cancelled';
    this.#budget.called();
    try {
      const deadline = { clock, timeoutMs: this.#timeoutMs, timeoutError, signal };
      const answer = await withDeadline(deadline, (over) => this.#repeat(operation, over));
      // A rejection is passed as a value up to this point, because the breaker counts it as a successful response.
      if (answer instanceof TollgateError) throw answer;
      result = 'ok';
      return answer;
    } catch (error) {
      if (error instanceof TollgateError) result = error.code;
      throw error;
    } finally {
      metrics.authServiceRequests.inc({ operation: operation.name, result });
      metrics.authServiceSeconds.observe({ operation: operation.name }, (clock.now() - startedAt) / 1000);
    }
  }

  async #repeat<T>(operation: Operation<T>, over: AbortSignal): Promise<T | TollgateError> {
    const { clock, metrics } = this.#deps;
    const endsAt = clock.now() + this.#timeoutMs;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#try(operation, over, attempt - 1);
      } catch (error) {
        if (error instanceof Fault) this.#logFailure('request to the auth service failed', error);
        const pauseMs = pauseAfter(error, attempt, operation.idempotent);
        if (pauseMs === undefined || clock.now() + pauseMs >= endsAt || !this.#budget.consume()) throw error;
        await sleep(clock, pauseMs, over);
        if (over.aborted) throw error;
        metrics.authServiceRetries.inc({ operation: operation.name });
      }
    }
  }

  async #try<T>(
    { name, endpoint, form, read, delivery }: Operation<T>,
    over: AbortSignal,
    resends: number,
  ): Promise<T | TollgateError> {
    const url = (await this.#metadata.endpoints())[endpoint];
    if (!url) {
      this.#logFailure(`the metadata of the auth service names no ${endpoint} endpoint`);
      return new TollgateError('INVALID_RESPONSE_FORMAT');
    }
    const { clock, tracing } = this.#deps;
    const attributes = {
      ...httpAttributes(url),
      'http.request.resend_count': resends,
      'tollgate.auth.operation': name,
    };
    const answer = await tracing.span('POST', { kind: 'client', attributes }, (span) => {
      const { traceParent: traceparent } = tracing;
      const authorization = this.#authorization;
      const headers = { ...(authorization ? { authorization } : {}), ...(traceparent ? { traceparent } : {}) };
      const body = authorization ? form : { ...form, client_id: this.#clientId };
      const sentAt = clock.now();
      const take = (response: HttpAnswer) => {
        span.set({ 'http.response.status_code': response.status });
        return response.ok ? read(response.json, sentAt) : readRefusal(response);
      };
      return this.#attempts.send({ url, form: body, headers, delivery }, take, over);
    });
    if (delivery && answer instanceof TollgateError) delivery.mayHaveActed = false;
    if (answer instanceof TollgateError && answer.cause instanceof ClientRefused) {
      this.#report(name, answer, answer.cause);
    }
    return answer;
  }

  /** Logs each refusal of this client once. It remains until an operator changes the configuration. */
  #report(operation: string, answer: TollgateError, { error, advice }: ClientRefused): void {
    const key = `${operation} ${error}`;
    if (this.#reported.has(key) || this.#reported.size >= MAX_REPORTED) return;
    this.#reported.add(key);
    this.#deps.logger.error({ err: answer, operation, oauth_error: error }, advice);
  }

  #logFailure(text: string, error?: Error): void {
    const { clock, logger } = this.#deps;
    if (elapsedSince(clock, this.#loggedAt) < LOG_EVERY_MS) return;
    this.#loggedAt = clock.now();
    logger.error({ err: error }, text);
  }

  #breakerChanged(state: BreakerState): void {
    const { metrics, logger } = this.#deps;
    if (!this.#isProvider) metrics.authBreaker.set(BREAKER_STATE_NUMBERS[state]);
    if (state === 'open') logger.warn('circuit breaker of the auth service opened');
    else if (state === 'closed') logger.info('circuit breaker of the auth service closed');
  }
}

/** Returns the pause before the next attempt, or undefined if there must not be one. */
function pauseAfter(error: unknown, attempt: number, idempotent: boolean): number | undefined {
  if (!(error instanceof Fault) || error.repeatable === 'never' || attempt >= MAX_ATTEMPTS) return undefined;
  if (error.repeatable === 'if_idempotent' && !idempotent) return undefined;
  const jitterMs = Math.random() * FIRST_PAUSE_MS * 2 ** (attempt - 1);
  return (error.retryAfterMs ?? 0) + jitterMs;
}

/** HTTP Basic authentication; RFC 6749 section 2.3.1 requires both parts to be form-encoded first. */
function basic(id: string, secret: string): string {
  const encoded = [id, secret].map((part) => new URLSearchParams([['', part]]).toString().slice(1));
  return `Basic ${Buffer.from(encoded.join(':')).toString('base64')}`;
}

/** Attributes of the OpenTelemetry semantic conventions for HTTP client spans. */
function httpAttributes({ hostname, port, protocol }: URL) {
  return {
    'http.request.method': 'POST',
    'server.address': hostname,
    'server.port': Number(port) || (protocol === 'https:' ? 443 : 80),
  };
}
