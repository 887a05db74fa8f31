import { Agent } from 'undici';
import type { Clock } from '../../lib/clock.ts';
import { Fault, type Repeatable, unusable } from './fault.ts';

/** Metadata and answers about tokens are a few KiB; what is longer is not read to its end. */
const MAX_BODY_BYTES = 65_536;
/** A `Retry-After` further away is as good as none: nobody holds a request for so long. */
const MAX_RETRY_AFTER_MS = 10 * 60_000;

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i;

/** The connection was not made: the request has not left. */
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
  /** Posted as a form; a GET without one. */
  readonly form?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
}

/** An answer that is not the service's own failure: a result, or what it holds against the request. */
export interface HttpAnswer {
  readonly status: number;
  readonly ok: boolean;
  /** Parsed, of whatever form; undefined when it is no JSON. */
  readonly json: unknown;
}

export interface HttpOptions {
  /** From the request to the end of the body. */
  readonly timeoutMs: number;
  readonly connections: number;
}

/** HTTP with bounds: connections, time, size of the body, no redirects. Time is the clock's, not undici's. */
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
    // Followed, it could lead anywhere inside, with the client's secret.
    if (status >= 300 && status < 400) throw unusable(`status ${status}: redirects are not followed`);
    const ok = status < 300;
    return { status, ok, json: JSON_TYPE.test(contentType) ? parsed(text) : undefined };
  }

  /** What is under way fails; nothing can be sent any more. */
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
      const retryAfterMs = this.#retryAfterMs(headers['retry-after']);
      return {
        status: statusCode,
        contentType: String(headers['content-type']),
        retryAfterMs,
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

  /** Seconds or a date: RFC 9110 section 10.2.3. */
  #retryAfterMs(header: string | string[] | undefined): number | undefined {
    if (typeof header !== 'string') return undefined;
    const afterMs = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - this.#clock.now();
    return afterMs > 0 ? Math.min(afterMs, MAX_RETRY_AFTER_MS) : undefined;
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

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
