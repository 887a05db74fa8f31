import { publicError, TollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import type { Redis } from '../redis/client.ts';
import { mapRedisErrors } from '../redis/errors.ts';
import type { ToolOutcome } from '../tools/outcome.ts';

/** Maximum number of events that are searched for the calls of earlier workers. */
const MAX_EVENTS = 2_000;

/** A call that has a `tool_executing` and no `tool_completed`. */
export interface OpenCall {
  readonly callId: string;
  /** Fields that both events have. */
  readonly fields: Fields;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
}

/** @param fields of `tool_executing` */
export function openCall(fields: Fields, startedAt: number): OpenCall {
  const { tool_name, tool_call_id, client, remote } = fields;
  const kind = { ...(client ? { client } : {}), ...(remote ? { remote } : {}) };
  return { callId: String(tool_call_id), fields: { tool_name, tool_call_id, ...kind }, startedAt };
}

/** Returns the outcome of a call that its run ended. */
export function interrupted({ fields, startedAt }: OpenCall, now: number): ToolOutcome {
  const text = 'The run has ended.';
  const error = new TollgateError('TOOL_FAILED', { text, fields: { tool_name: fields.tool_name } });
  const duration_ms = Math.max(0, Math.round(now - startedAt));
  return { success: false, error: publicError(error), duration_ms, usage_record_id: null };
}

/**
 * Returns the open calls of a run by its events in the log, in one round trip. Calls of trimmed events are missing, and
 * those behind the first `MAX_EVENTS` events of the user since the run began.
 * @param firstSeq `seq` of the first event of the run
 * @throws RedisUnavailable
 */
export async function openCallsInLog(
  redis: Redis,
  log: string,
  { runId, firstSeq }: { readonly runId: string; readonly firstSeq: number },
): Promise<OpenCall[]> {
  const entries = await mapRedisErrors(redis.xrange(log, `${firstSeq}-0`, '+', 'COUNT', MAX_EVENTS));
  const open = new Map<string, OpenCall>();
  for (const [, [, type = '', , , , , , json = '']] of entries) {
    if (type !== 'tool_executing' && type !== 'tool_completed') continue;
    const fields: Fields = JSON.parse(json);
    if (fields.run_id !== runId) continue;
    const call = openCall(fields, Date.parse(String(fields.timestamp)));
    if (type === 'tool_executing') open.set(call.callId, call);
    else open.delete(call.callId);
  }
  return [...open.values()];
}
