import { parseRetryAfter } from '../../lib/retry-after.ts';
import { type ErrorCode, TollgateError } from '../../protocol/errors.ts';
import type { ReportedTokens } from '../../runs/remote-log.ts';

/** Why a turn of a remote agent failed: a bounded set, used as a label of metrics and as `reason` of the error. */
export type RemoteReason =
  | 'unreachable'
  | 'unavailable'
  | 'rate_limited'
  | 'breaker_open'
  | 'refused'
  | 'timeout'
  | 'interrupted'
  | 'invalid'
  | 'too_large'
  | 'error'
  | 'cancelled'
  | 'not_resumable'
  | 'input_required'
  | 'auth_required';

export interface RemoteFaultDetails {
  readonly status?: number | undefined;
  /** From `Retry-After`. */
  readonly retryAfterMs?: number | undefined;
  /** Error code of the agent. Public; other text of the agent is not. */
  readonly agentCode?: string | undefined;
  readonly retryable?: boolean | undefined;
  readonly tokens?: ReportedTokens | undefined;
}

const CODES: Readonly<Record<RemoteReason, ErrorCode>> = {
  unreachable: 'AGENT_UNAVAILABLE',
  unavailable: 'AGENT_UNAVAILABLE',
  rate_limited: 'AGENT_UNAVAILABLE',
  breaker_open: 'AGENT_UNAVAILABLE',
  refused: 'AGENT_FAILED',
  timeout: 'AGENT_FAILED',
  interrupted: 'AGENT_FAILED',
  invalid: 'AGENT_FAILED',
  too_large: 'AGENT_FAILED',
  error: 'AGENT_FAILED',
  cancelled: 'AGENT_FAILED',
  not_resumable: 'AGENT_INTERRUPTED',
  input_required: 'AGENT_INPUT_REQUIRED',
  auth_required: 'AGENT_INPUT_REQUIRED',
};
const TEXTS: Partial<Readonly<Record<RemoteReason, string>>> = {
  refused: 'The server of the agent refuses the request. Contact the operator.',
  timeout: 'The agent sent nothing for too long. Start a new run.',
  interrupted: 'The server of the agent ended its response too early. Check what the agent did before a new run.',
  invalid: 'The server of the agent sent a response that its protocol does not allow. Contact the operator.',
  too_large: 'The agent sent more than its limits allow. Ask for less.',
  error: 'The agent reported an error.',
  cancelled: 'The server of the agent cancelled the task.',
  input_required: 'The agent needed an answer before it could continue, and got none. Start a new run.',
  auth_required: 'The agent needed an authorization that was not given. Start a new run once you have given it.',
};
/** Faults of the server itself; the others can come from one conversation, and say nothing about the next one. */
const SERVER_FAULTS: ReadonlySet<RemoteReason> = new Set(['unreachable', 'unavailable', 'timeout', 'interrupted']);
/** Statuses of servers and proxies that are overloaded, starting or away. */
const UNAVAILABLE = new Set([500, 502, 503, 504]);
const AGENT_CODE = /^[\w.:-]{1,64}$/;
/** Upper bound for `Retry-After`. */
const MAX_RETRY_AFTER_MS = 3_600_000;

/** Failure of one turn. The message is logged; it contains no host, credential or text of the conversation. */
export class RemoteFault extends Error {
  readonly reason: RemoteReason;
  readonly details: RemoteFaultDetails;

  constructor(reason: RemoteReason, message: string, details: RemoteFaultDetails = {}) {
    super(message);
    this.name = 'RemoteFault';
    this.reason = reason;
    this.details = details;
  }

  /** Whether the fault counts for the circuit breaker of the server. */
  get isOfServer(): boolean {
    return SERVER_FAULTS.has(this.reason);
  }

  /** Returns the error of the run. */
  get public(): TollgateError {
    const { reason } = this;
    const { agentCode, retryAfterMs, retryable } = this.details;
    const text = TEXTS[reason];
    return new TollgateError(CODES[reason], {
      cause: this,
      fields: { reason, ...(agentCode !== undefined && AGENT_CODE.test(agentCode) ? { agent_code: agentCode } : {}) },
      ...(text === undefined ? {} : { text }),
      ...(retryable === undefined ? {} : { retryable }),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
}

/** Returns the fault behind a response with an error status. */
export function statusFault(status: number, headers: Pick<Headers, 'get'>): RemoteFault {
  const retryAfterMs = parseRetryAfter(headers.get('retry-after'), Date.now(), MAX_RETRY_AFTER_MS);
  const message = `the server answered HTTP ${status}`;
  if (status === 429) return new RemoteFault('rate_limited', message, { status, retryAfterMs });
  if (UNAVAILABLE.has(status)) return new RemoteFault('unavailable', message, { status, retryAfterMs });
  return new RemoteFault('refused', message, { status });
}

/** Converts an error of `fetch` or of a body, whose message can contain host and port. */
export function faultOf(thrown: unknown): Error {
  if (thrown instanceof RemoteFault) return thrown;
  const cause = thrown instanceof TypeError ? thrown.cause : undefined;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const isUnreachable = /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT)$/;
  if (isUnreachable.test(code)) return new RemoteFault('unreachable', `the server cannot be reached: ${code}`);
  return new RemoteFault('interrupted', `the response was interrupted: ${code || 'unknown'}`);
}
