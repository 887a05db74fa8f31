import type { Fields } from '../../protocol/messages.ts';
import type { RunEvent } from '../run-events.ts';
import type { Interrupt } from './events.ts';

/** Schema of the payload that answers an approval. */
const APPROVAL_SCHEMA = {
  type: 'object',
  properties: { approved: { type: 'boolean' } },
  required: ['approved'],
} as const;

/** The input requests of a run that have no answer yet, and the calls that continue without one. */
export class OpenInputs {
  readonly #requests = new Map<string, Fields>();
  readonly #calls = new Set<unknown>();

  add({ type, fields }: RunEvent): void {
    if (type === 'tool_executing') this.#calls.add(fields.tool_call_id);
    if (type === 'tool_completed') this.#calls.delete(fields.tool_call_id);
    if (type === 'input_requested') this.#requests.set(String(fields.input_id), fields);
    if (type === 'input_received' || type === 'input_expired') this.#requests.delete(String(fields.input_id));
  }

  /** Whether the run can only continue with an answer of its user. */
  get isPaused(): boolean {
    const waiting = new Set([...this.#requests.values()].map(({ tool_call_id }) => tool_call_id));
    return this.#requests.size > 0 && [...this.#calls].every((call) => waiting.has(call));
  }

  /** The calls that the front end has to execute. */
  get pendingCalls(): readonly string[] {
    const open = [...this.#requests.values()].filter(isClientCall);
    return open.map(({ tool_call_id }) => String(tool_call_id));
  }

  get interrupts(): readonly Interrupt[] {
    const open = [...this.#requests.values()].filter((fields) => !isClientCall(fields));
    return open.map((fields) => ({
      id: String(fields.input_id),
      reason: String(fields.kind),
      message: String(fields.message),
      ...(typeof fields.tool_call_id === 'string' ? { toolCallId: fields.tool_call_id } : {}),
      responseSchema: schemaOf(fields),
      expiresAt: String(fields.expires_at),
      metadata: { tollgate: { run_id: fields.run_id, tool_name: fields.tool_name } },
    }));
  }
}

function isClientCall({ kind }: Fields): boolean {
  return kind === 'tool';
}

function schemaOf({ kind, choices, schema }: Fields): Fields {
  if (kind === 'choice') {
    return { type: 'object', properties: { choice: { type: 'string', enum: choices } }, required: ['choice'] };
  }
  return kind === 'form' ? (schema as Fields) : APPROVAL_SCHEMA;
}
