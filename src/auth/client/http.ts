import { Agent } from 'undici';
import type { Clock } from '../../lib/clock.ts';
import { parseJson } from '../../lib/json.ts';
import { parseRetryAfter } from '../../lib/retry-after.ts';
import { Fault, type Repeatable, unusable } from './fault.ts';

/** Bound of a response body. Metadata and token responses have a few KiB. */
const MAX_BODY_BYTES = 65_536;
/** Upper bound for `Retry-After`. Longer delays make no difference, because no request is kept that long. */
const MAX_RETRY_AFTER_MS = 10 * 60_000;

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i;

/** Error codes of a failed connection attempt. The request was not sent. */
const NOT_CONNECTED = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

export interface HttpRequest {
  readonly url: URL;
  /** Body of a form POST; without it, the request is a GET. */
  readonly form?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A response other than a failure of the service: a result or a rejection of the request. */
export interface HttpAnswer {
  readonly status: number;
  readonly ok: boolean;
  /** Parsed but not validated; undefined if the body is not JSON. */
  readonly json: unknown;
}

export interface HttpOptions {
  /** From the request to the end of the body. */
  readonly timeoutMs: number;
  readonly connections: number;
}

/**
 * HTTP client with bounded connections, time and body size. It follows no redirects and uses `Clock`, not undici's
 * timers.
 */
export class Http {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #agent: Agent;
  readonly #inFlight = new Set<AbortController>();

  constructor({ clock }: { clock: Clock }, { timeoutMs, connections }: HttpOptions) {
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#agent = new Agent({
      connections,
      maxResponseSize: MAX_BODY_BYTES,
      connect: { timeout: timeoutMs },
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /** @throws Fault */
  async send({ url, form, headers = {} }: HttpRequest): Promise<HttpAnswer> {
    const { status, contentType, retryAfterMs, text } = await this.#exchange({
      origin: url.origin,
      path: `${url.pathname}${url.search}`,
      method: form === undefined ? 'GET' : 'POST',
      headers: {
        accept: 'application/json',
        ...(form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }),
        ...headers,
      },
      body: form === undefined ? null : new URLSearchParams(form).toString(),
    });
    if (status === 429) throw unavailable(status, 'always', retryAfterMs);
    if (status >= 500 || status === 408) throw unavailable(status, 'if_idempotent', retryAfterMs);
    // A redirect could send the client's secret to any host of the internal network.
    if (status >= 300 && status < 400) throw unusable(`status ${status}: redirects are not followed`);
    const ok = status < 300;
    return { status, ok, json: JSON_TYPE.test(contentType) ? parseJson(text) : undefined };
  }

  /** Aborts the requests in flight. Later requests fail. */
  async close(): Promise<void> {
    for (const controller of this.#inFlight) controller.abort();
    await this.#agent.destroy();
  }

  async #exchange(request: Omit<Parameters<Agent['request']>[0], 'signal'>) {
    const abort = new AbortController();
    let late = false;
    const cancel = this.#clock.after(this.#timeoutMs, () => {
      late = true;
      abort.abort();
    });
    this.#inFlight.add(abort);
    try {
      const { statusCode, headers, body } = await this.#agent.request({ ...request, signal: abort.signal });
      const retryAfter = [headers['retry-after']].flat()[0];
      return {
        status: statusCode,
        contentType: String(headers['content-type']),
        // A time that has passed says nothing about the next attempt.
        retryAfterMs: parseRetryAfter(retryAfter, this.#clock.now(), MAX_RETRY_AFTER_MS) || undefined,
        text: await body.text(),
      };
    } catch (cause) {
      if (late) throw new Fault('AUTH_SERVICE_TIMEOUT', 'never', { cause });
      throw abort.signal.aborted ? new Fault('AUTH_SERVICE_UNAVAILABLE', 'never', { cause }) : faultOf(cause);
    } finally {
      cancel();
      this.#inFlight.delete(abort);
    }
  }
}

function unavailable(status: number, repeatable: Repeatable, retryAfterMs: number | undefined): Fault {
  const cause = new Error(`status ${status}`);
  const details = retryAfterMs === undefined ? { cause } : { cause, retryAfterMs };
  return new Fault('AUTH_SERVICE_UNAVAILABLE', repeatable, details);
}

function faultOf(cause: unknown): Fault {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  if (code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE') return unusable(`a body of more than ${MAX_BODY_BYTES} bytes`, cause);
  if ((cause instanceof Error && cause.name === 'HTTPParserError') || code === 'UND_ERR_HEADERS_OVERFLOW')
    return unusable('no HTTP', cause);
  return new Fault('AUTH_SERVICE_UNAVAILABLE', NOT_CONNECTED.has(code) ? 'always' : 'if_idempotent', { cause });
}
