import type { Clock } from './clock.ts';
import { errorFromFields, TollgateError } from './errors.ts';
import type { Fields } from './transports/transport.ts';

/** The message that answers each request. */
export const REPLIES = {
  agent_request: 'agent_accepted',
  agent_cancel: 'cancel_accepted',
  run_status: 'run_status',
  input_response: 'input_accepted',
  tool_call: 'tool_result',
  usage_summary: 'usage_summary',
  tools_list: 'tools_list',
  threads_list: 'threads_list',
  thread_history: 'thread_history',
} as const;
export type RequestType = keyof typeof REPLIES;
type ReplyType = (typeof REPLIES)[RequestType];

export interface RequestOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface RequestsDeps {
  /** Sends a message if connected, and returns whether it was sent. */
  readonly send: (type: string, fields: Fields) => boolean;
  /** Why there is no connection; undefined while there is one. */
  readonly problem: () => TollgateError | undefined;
  readonly clock: Clock;
}

export interface RequestsLimits {
  /** Maximum time from the request to its answer, reconnects included, in milliseconds. */
  readonly timeoutMs: number;
  /** Longest delay that a request waits for, when the gateway asks to retry later, in milliseconds. */
  readonly maxRetryAfterMs: number;
}

interface Pending {
  readonly type: RequestType;
  readonly fields: Fields;
  readonly resolve: (fields: Fields) => void;
  readonly reject: (error: unknown) => void;
  retries: number;
  cancelRetry: () => void;
}

const MAX_PENDING = 1_000;
const MAX_RETRIES = 3;

/**
 * Requests that wait for their answer. They outlive the connection: each is sent again after a reconnect, under the
 * same request id and idempotency key, so that the gateway executes it once.
 */
export class Requests {
  readonly #deps: RequestsDeps;
  readonly #limits: RequestsLimits;
  readonly #pending = new Map<string, Pending>();

  constructor(deps: RequestsDeps, limits: RequestsLimits) {
    this.#deps = deps;
    this.#limits = limits;
  }

  /** @throws TollgateError that the gateway answers with, or REQUEST_TIMEOUT; rejects with the reason of `signal` */
  send(type: RequestType, fields: Fields, requestId: string, { signal }: RequestOptions = {}): Promise<Fields> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.#pending.size >= MAX_PENDING) {
      const message = `${MAX_PENDING} requests are waiting for their answers.`;
      return Promise.reject(new TollgateError('TOO_MANY_REQUESTS_PENDING', { message, retryable: true }));
    }
    return new Promise<Fields>((resolve, reject) => {
      const finish = () => {
        this.#pending.delete(requestId);
        pending.cancelRetry();
        cancelTimeout();
        signal?.removeEventListener('abort', aborted);
      };
      const aborted = () => {
        finish();
        reject(signal?.reason);
      };
      const cancelTimeout = this.#deps.clock.after(this.#limits.timeoutMs, () => {
        const cause = this.#deps.problem();
        const message = `No answer to ${type}${cause ? `: not connected (${cause.code}: ${cause.message})` : ''}.`;
        pending.reject(new TollgateError('REQUEST_TIMEOUT', { message, retryable: true, cause }));
      });
      const pending: Pending = {
        type,
        fields: { ...fields, request_id: requestId },
        resolve: (reply) => {
          finish();
          resolve(reply);
        },
        reject: (error) => {
          finish();
          reject(error);
        },
        retries: 0,
        cancelRetry: () => {},
      };
      signal?.addEventListener('abort', aborted, { once: true });
      this.#pending.set(requestId, pending);
      this.#deps.send(type, pending.fields);
    });
  }

  /** Sends all waiting requests again, in their order. */
  connected(): void {
    for (const { type, fields, cancelRetry } of [...this.#pending.values()]) {
      cancelRetry();
      this.#deps.send(type, fields);
    }
  }

  /** Settles the request that a message answers. @returns whether there was one */
  receive(type: string, fields: Fields): boolean {
    const pending = typeof fields.request_id === 'string' ? this.#pending.get(fields.request_id) : undefined;
    if (!pending) return false;
    if (type === 'error') this.#refused(pending, errorFromFields(fields));
    else if ((REPLIES[pending.type] as ReplyType) === type) pending.resolve(fields);
    else return false;
    return true;
  }

  rejectAll(error: TollgateError): void {
    for (const { reject } of [...this.#pending.values()]) reject(error);
  }

  /** A short delay that the gateway asks for is waited for; a longer one is the caller's decision. */
  #refused(pending: Pending, error: TollgateError): void {
    const { retryAfterMs } = error;
    const mayRetry = error.retryable && retryAfterMs !== undefined && retryAfterMs <= this.#limits.maxRetryAfterMs;
    if (!mayRetry || pending.retries >= MAX_RETRIES) return pending.reject(error);
    pending.retries += 1;
    pending.cancelRetry = this.#deps.clock.after(retryAfterMs, () => {
      this.#deps.send(pending.type, pending.fields);
    });
  }
}
