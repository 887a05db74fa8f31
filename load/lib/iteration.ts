import type { Fields } from '../../packages/client/src/transports/transport.ts';
import { ERRORS } from '../../src/protocol/error-table.ts';
import { isTerminalEvent } from '../../src/protocol/messages.ts';
import type { IterationKind } from './mix.ts';

/**
 * One action of a virtual user and the data needed to detect its end. It is plain data, so that a backlog of iterations
 * stays small.
 */
export interface Iteration {
  readonly kind: IterationKind;
  /** The scheduled time, by `performance.now()`. Every figure of the iteration counts from it. */
  readonly dueAt: number;
  readonly message: { readonly type: string; readonly fields: Fields };
  readonly requestId: string;
}

/** The meaning of an event for the iteration in flight; undefined if the event does not concern it. */
export type Progress = 'accepted' | 'first_event' | 'completed' | { readonly failed: string } | undefined;

type Reader = (type: string, fields: Fields, requestId: string) => Progress;

/**
 * How each kind of iteration ends. Where possible a durable event ends it: after a reconnect the client still receives
 * such an event, but not a lost reply.
 */
const READERS: Readonly<Record<IterationKind, Reader>> = {
  agent_request(type, { request_id, seq }, requestId) {
    if (request_id !== requestId) return undefined;
    if (type === 'agent_accepted') return 'accepted';
    if (type === 'agent_completed') return 'completed';
    if (isTerminalEvent(type)) return { failed: type };
    return typeof seq === 'number' ? 'first_event' : undefined;
  },
  tool_call(type, { request_id, success, error }, requestId) {
    if (request_id !== requestId) return undefined;
    if (type === 'tool_executing') return 'accepted';
    if (type !== 'tool_completed' && type !== 'tool_result') return undefined;
    if (success === true) return 'completed';
    return { failed: codeIn(error) ?? 'TOOL_FAILED' };
  },
  ping(type, { original_timestamp }, requestId) {
    return type === 'pong' && original_timestamp === requestId ? 'completed' : undefined;
  },
  resume(type) {
    if (type === 'resumed') return 'completed';
    return type === 'resume_failed' ? { failed: type } : undefined;
  },
};

export function progressOf(iteration: Iteration, type: string, fields: Fields): Progress {
  if (type === 'error') return refusalOf(iteration, fields);
  return READERS[iteration.kind](type, fields, iteration.requestId);
}

/**
 * An error without a request id (a ping's, for example) concerns the iteration if the connection stays open, because a
 * user has one iteration at a time. Otherwise it concerns the connection, which the iteration outlives.
 */
function refusalOf({ requestId }: Iteration, { request_id, code }: Fields): Progress {
  const name = String(code);
  const isOurs = request_id === undefined ? name in ERRORS && closeCodeOf(name) === null : request_id === requestId;
  return isOurs ? { failed: name } : undefined;
}

function closeCodeOf(name: string): number | null {
  return ERRORS[name as keyof typeof ERRORS].close;
}

function codeIn(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return String(error.code);
}
