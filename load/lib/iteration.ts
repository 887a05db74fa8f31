import { ERRORS } from '../../src/protocol/errors.ts';
import { isTerminalEvent } from '../../src/protocol/messages.ts';
import type { Fields } from './link.ts';
import type { IterationKind } from './mix.ts';

/** One thing that a user does, and what is waited for until it is done. Plain data, so that a backlog of them is small. */
export interface Iteration {
  readonly kind: IterationKind;
  /** When the schedule wanted it, by `performance.now()`: what every figure of the turn counts from. */
  readonly dueAt: number;
  readonly message: { readonly type: string; readonly fields: Fields };
  readonly requestId: string;
}

/** What an event means for the turn under way; undefined when it has nothing to do with it. */
export type Progress = 'accepted' | 'first_event' | 'completed' | { readonly failed: string } | undefined;

type Reader = (type: string, fields: Fields, requestId: string) => Progress;

/**
 * How the end of each kind is told. Durable events end a turn wherever they can: they come also when the connection was
 * lost in between, where an answer would not.
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
 * An error that names no request (a ping's, for one) is about the turn if it leaves the connection open, since a user has
 * one turn at a time; otherwise it is about the connection, which the turn outlives.
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
