import type { Clock } from '../../lib/clock.ts';
import { parseJson } from '../../lib/json.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { RemoteTurn } from '../../runs/remote-log.ts';
import { asObject, asText } from '../model/json.ts';
import { RemoteFault } from './fault.ts';

const MAX_OPEN = 1_000;
const MAX_NAME = 128;

/**
 * Tool calls that a remote agent makes by itself and reports. They appear in the log as `tool_executing` and
 * `tool_completed` with `remote: true`; Tollgate neither executes nor bills them.
 */
export class RemoteCalls {
  readonly #remote: RemoteTurn;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #open = new Map<string, { readonly tool: string; readonly startedAt: number }>();

  constructor(remote: RemoteTurn, clock: Pick<Clock, 'now'>) {
    this.#remote = remote;
    this.#clock = clock;
  }

  /** @param args an object, or its JSON @throws RemoteFault for a call that has no form of a call */
  async begin(id: unknown, tool: unknown, args: unknown, cursor?: unknown): Promise<void> {
    const name = nameOf(tool);
    const callId = nameOf(id);
    if (name === undefined || callId === undefined) throw new RemoteFault('invalid', 'a call without id or name');
    if (this.#open.has(callId)) return;
    if (this.#open.size >= MAX_OPEN) throw new RemoteFault('too_large', `more than ${MAX_OPEN} open calls`);
    this.#open.set(callId, { tool: name, startedAt: this.#clock.now() });
    const read = typeof args === 'string' ? parseJson(args === '' ? '{}' : args) : args;
    const fields = { tool_name: name, tool_call_id: callId, arguments: asObject(read) ?? {}, status: 'executing' };
    await this.#remote.event('tool_executing', { ...fields, remote: true }, cursor);
  }

  /** Ends a call. A result without a call is ignored. @returns whether the call was open */
  async end(id: unknown, outcome: Fields, cursor?: unknown): Promise<boolean> {
    const callId = nameOf(id) ?? '';
    const call = this.#open.get(callId);
    if (!call) return false;
    this.#open.delete(callId);
    const fields = { tool_name: call.tool, tool_call_id: callId, ...outcome, status: 'completed', remote: true };
    const duration_ms = Math.max(0, this.#clock.now() - call.startedAt);
    await this.#remote.event('tool_completed', { ...fields, duration_ms, usage_record_id: null }, cursor);
    return true;
  }

  /** Ends the calls without a result. */
  async endAll(): Promise<void> {
    for (const id of [...this.#open.keys()]) await this.end(id, failedCall('The agent reported no result.'));
  }
}

export function failedCall(message: unknown): Fields {
  const text = asText(message)?.slice(0, 500) || 'The tool of the agent failed.';
  return { success: false, error: { code: 'TOOL_FAILED', message: text.toWellFormed(), retryable: false } };
}

function nameOf(value: unknown): string | undefined {
  const text = typeof value === 'number' ? String(value) : asText(value);
  return text !== undefined && text !== '' && text.length <= MAX_NAME ? text : undefined;
}
