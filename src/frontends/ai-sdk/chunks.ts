import type { UIMessageChunk } from 'ai';
import { publicError, type TollgateError } from '../../protocol/errors.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { RunEvent } from '../run-events.ts';
import { addText, type Digest, EMPTY_DIGEST, isDigestOf } from './text-digest.ts';

/**
 * Version of the mapping. Clients count chunks (`startIndex`, `sequence`), so a change that gives other chunks for the
 * same events must change it.
 */
export const MAPPING_VERSION = 3;

/** A chunk of the UI message stream of the AI SDK 7; its types are those of the package `ai`. */
export type Chunk = UIMessageChunk & Fields;

/** A call of a tool that has not completed. */
interface OpenCall {
  /** The input request whose answer the call needs: an approval, or the result of the page. */
  readonly waitsFor: string | undefined;
  /** Whether the page executes it, and has received it. */
  readonly isOfPage: boolean;
}

/** The state after a prefix of the events of a run. Its size does not depend on the length of the run's text. */
export interface MappingState {
  /** Number of chunks so far: the index of the next one. */
  readonly chunks: number;
  /** Step of the agent whose parts are open; undefined before the first one. */
  readonly step: number | undefined;
  /** The open text or reasoning part. */
  readonly open: { readonly kind: 'text' | 'reasoning'; readonly id: string } | undefined;
  /** Number of text and reasoning parts so far, for their ids. */
  readonly partCount: number;
  /** Digest of the text of the current step: the answer of most agents repeats the text of their last step. */
  readonly text: Digest;
  /** Number of usage records. */
  readonly records: number;
  /** The calls that have not completed, by their id. */
  readonly calls: ReadonlyMap<string, OpenCall>;
  /** The open requests for a choice or a form, by their id. */
  readonly inputs: ReadonlyMap<string, Fields>;
}

export const INITIAL_STATE: MappingState = {
  chunks: 0,
  step: undefined,
  open: undefined,
  partCount: 0,
  text: EMPTY_DIGEST,
  records: 0,
  calls: new Map(),
  inputs: new Map(),
};

export interface Mapped {
  readonly state: MappingState;
  readonly chunks: readonly Chunk[];
}

/**
 * Maps the next event of a run to chunks. A pure function: live and resumed streams of all transports give the same
 * chunks, because the same events in the same order give the same chunks.
 */
export function mapEvent(state: MappingState, event: RunEvent): Mapped {
  const mapped = new Mapping(state);
  mapped.add(event);
  return mapped.result();
}

/**
 * Whether the run can only continue with an answer of the user, and at least one of the answers is an approval or the
 * result of a tool of the page: clients send those with their next request, once the response has ended. Calls that
 * continue end first.
 */
export function isPaused({ calls, inputs }: MappingState): boolean {
  const waiting = new Set([...inputs.values()].map(({ tool_call_id }) => tool_call_id));
  const isAwaited = [...calls.values()].some(({ waitsFor }) => waitsFor !== undefined);
  return isAwaited && [...calls].every(([id, { waitsFor }]) => waitsFor !== undefined || waiting.has(id));
}

/** Whether a chunk is a call that the page has to execute, as far as the chunk alone shows. */
export function isPageCall(chunk: Chunk): boolean {
  return chunk.type === 'tool-input-available' && chunk.providerExecuted !== true;
}

/** Whether the call of a chunk has no answer yet. */
export function isOpenCall({ calls }: MappingState, { toolCallId }: Chunk): boolean {
  return calls.get(text(toolCallId))?.waitsFor !== undefined;
}

/** Ends a response whose run waits for its user. It is no part of the run's chunks: a later replay continues. */
export function pauseChunk(event: RunEvent): Chunk {
  return { type: 'finish', finishReason: 'tool-calls', messageMetadata: metadataOf(event) };
}

/** The chunks of a stream that ends because of an error of the gateway. The run may continue. */
export function errorChunks(error: TollgateError): readonly Chunk[] {
  return [errorChunk(publicError(error)), { type: 'finish', finishReason: 'error' }];
}

/**
 * `errorText` is all that clients of the package read. It has the form of an HTTP error body, which is what they get as
 * the message of a refused request.
 */
function errorChunk(error: Fields): Chunk {
  const { code, retry_after_ms } = error;
  const retry = retry_after_ms === undefined ? {} : { retry_after_ms };
  return { type: 'error', errorText: JSON.stringify({ error }), code, ...retry };
}

const FINISH_REASONS = { length: 'length', content_filter: 'content-filter', refusal: 'content-filter' } as const;

/** One transition. */
class Mapping {
  readonly #chunks: Chunk[] = [];
  #state: MappingState;

  constructor(state: MappingState) {
    this.#state = state;
  }

  result(): Mapped {
    const chunks = this.#chunks;
    return { chunks, state: { ...this.#state, chunks: this.#state.chunks + chunks.length } };
  }

  add(event: RunEvent): void {
    const { fields } = event;
    if (typeof fields.usage_record_id === 'string') this.#update({ records: this.#state.records + 1 });
    switch (event.type) {
      case 'agent_started':
        return this.#push({ type: 'start', messageId: text(fields.run_id), messageMetadata: metadataOf(event) });
      case 'agent_thinking':
        this.#enterStep(Number(fields.step), fields.replaces_step);
        return this.#write('text', text(fields.thought));
      case 'agent_reasoning':
        this.#enterStep(Number(fields.step), fields.replaces_step);
        return this.#write('reasoning', text(fields.reasoning));
      case 'tool_executing':
        return this.#toolInput(fields);
      case 'tool_completed':
        return this.#toolOutput(fields);
      case 'input_requested':
        return this.#inputRequest(event);
      case 'input_received':
      case 'input_expired':
        return this.#inputEnd(fields);
      case 'agent_completed':
        return this.#complete(event);
      case 'agent_failed':
        this.#push(errorChunk(fields.error as Fields));
        return this.#finish(event, 'error');
      case 'agent_cancelled':
        this.#push({ type: 'abort', reason: 'cancelled' });
        return this.#finish(event, 'other');
      // Events of later versions.
      default:
    }
  }

  /** Begins a step, or an attempt that replaces the parts of the current one. */
  #enterStep(step: number, replaces: unknown): void {
    const { step: current } = this.#state;
    if (step === current) return;
    if (current !== undefined && replaces === current) {
      // Removes all parts of the step, the open one included.
      this.#push({ type: 'reset-step' });
    } else this.#startStep();
    this.#update({ step, open: undefined, text: EMPTY_DIGEST });
  }

  #startStep(): void {
    this.#endStep();
    this.#push({ type: 'start-step' });
  }

  #endStep(): void {
    this.#closePart();
    if (this.#state.step !== undefined) this.#push({ type: 'finish-step' });
  }

  #write(kind: 'text' | 'reasoning', delta: string): void {
    if (this.#state.open?.kind !== kind) {
      this.#closePart();
      const partCount = this.#state.partCount + 1;
      const id = `${kind}-${partCount}`;
      this.#push({ type: `${kind}-start`, id });
      this.#update({ partCount, open: { kind, id } });
    }
    const { id = '' } = this.#state.open ?? {};
    this.#push({ type: `${kind}-delta`, id, delta });
    if (kind === 'text') this.#update({ text: addText(this.#state.text, delta) });
  }

  #closePart(): void {
    const { open } = this.#state;
    if (open) this.#push({ type: `${open.kind}-end`, id: open.id });
    this.#update({ open: undefined });
  }

  /**
   * `providerExecuted`: otherwise clients would answer the call themselves with another request. The call of a tool of
   * the page follows with its input request, from which on it can be answered.
   */
  #toolInput(fields: Fields): void {
    if (this.#state.step === undefined) this.#enterStep(0, undefined);
    this.#closePart();
    this.#setCall(fields, undefined);
    if (fields.client !== true) this.#push({ ...callChunk(fields), providerExecuted: true });
  }

  /** `providerExecuted` also for tools of the page: a client sends results without it again. */
  #toolOutput(fields: Fields): void {
    const toolCallId = text(fields.tool_call_id);
    const call = { toolCallId, providerExecuted: true };
    this.#update({ calls: new Map([...this.#state.calls].filter(([id]) => id !== toolCallId)) });
    if (fields.success === true) {
      return this.#push({ type: 'tool-output-available', ...call, output: fields.result ?? null });
    }
    const { message, ...error } = (fields.error ?? {}) as Fields;
    if (error.code === 'APPROVAL_DECLINED') return this.#push({ type: 'tool-output-denied', toolCallId, error });
    this.#push({ type: 'tool-output-error', ...call, errorText: text(message), error });
  }

  /**
   * An approval belongs to the part of its call, and the call of a tool of the page is a part. Other requests are data,
   * which the client answers over HTTP.
   */
  #inputRequest(event: RunEvent): void {
    const { fields } = event;
    const approvalId = text(fields.input_id);
    if (isOfCall(fields)) {
      this.#setCall(fields, approvalId);
      // The answer comes with the metadata of the message, also when the response was cut after this chunk.
      this.#push({ type: 'message-metadata', messageMetadata: metadataOf(event) });
      if (fields.kind === 'tool') return this.#push(callChunk(fields));
      return this.#push({ type: 'tool-approval-request', approvalId, toolCallId: text(fields.tool_call_id) });
    }
    this.#closePart();
    const request = requestOf(fields);
    this.#update({ inputs: new Map([...this.#state.inputs, [approvalId, request]]) });
    this.#push({ type: 'data-tollgate-input', id: approvalId, data: { ...request, status: 'open' } });
  }

  #inputEnd(fields: Fields): void {
    const id = text(fields.input_id);
    const { action } = fields;
    if (isOfCall(fields)) {
      this.#setCall(fields, undefined);
      // The part of an expired request gets the error of its call, and that of a tool of the page its result.
      if (action === undefined || fields.kind === 'tool') return;
      const approved = action === 'accept';
      return this.#push({ type: 'tool-approval-response', approvalId: id, approved, providerExecuted: true });
    }
    const request = this.#state.inputs.get(id);
    if (!request) return;
    this.#update({ inputs: new Map([...this.#state.inputs].filter(([open]) => open !== id)) });
    const end = action === undefined ? { status: 'expired' } : { status: 'answered', action };
    this.#push({ type: 'data-tollgate-input', id, data: { ...request, ...end } });
  }

  #setCall({ kind, tool_call_id }: Fields, waitsFor: string | undefined): void {
    const call = { waitsFor, isOfPage: kind === 'tool' };
    this.#update({ calls: new Map([...this.#state.calls, [text(tool_call_id), call]]) });
  }

  /** Ends the calls of the page that have no outcome: a client with their results sends them again without end. */
  #endPageCalls(): void {
    for (const [toolCallId, { isOfPage }] of this.#state.calls) {
      if (!isOfPage) continue;
      this.#push({ type: 'tool-output-error', toolCallId, errorText: 'The run has ended.', providerExecuted: true });
    }
    this.#update({ calls: new Map() });
  }

  /** Adds the answer, unless it is the text of the last step. */
  #complete(event: RunEvent): void {
    const answer = text(event.fields.final_response);
    if (answer !== '' && !isDigestOf(this.#state.text, answer)) {
      this.#startStep();
      this.#update({ step: (this.#state.step ?? 0) + 1 });
      this.#write('text', answer);
    }
    const reason = event.fields.finish_reason;
    this.#finish(event, FINISH_REASONS[reason as keyof typeof FINISH_REASONS] ?? 'stop');
  }

  /** Every run ends with `finish`: a client that receives none asks again without end. */
  #finish(event: RunEvent, finishReason: 'stop' | 'length' | 'content-filter' | 'error' | 'other'): void {
    this.#endPageCalls();
    this.#endStep();
    const { run_id, thread_id, status, duration_ms, tools_used } = event.fields;
    const data = { run_id, thread_id, status, duration_ms, tools_used, usage_records: this.#state.records };
    this.#push({ type: 'data-tollgate', data, transient: true });
    this.#push({ type: 'finish', finishReason, messageMetadata: metadataOf(event) });
  }

  #push(chunk: Chunk): void {
    this.#chunks.push(chunk);
  }

  #update(change: Partial<MappingState>): void {
    this.#state = { ...this.#state, ...change };
  }
}

/** Whether an input request belongs to the part of a call. */
function isOfCall({ kind, tool_call_id }: Fields): boolean {
  return (kind === 'approval' || kind === 'tool') && typeof tool_call_id === 'string';
}

function callChunk({ tool_call_id, tool_name, arguments: input }: Fields) {
  return { type: 'tool-input-available', toolCallId: text(tool_call_id), toolName: text(tool_name), input } as const;
}

function requestOf(fields: Fields): Fields {
  const { run_id, input_id, kind, message, choices, schema, tool_name, tool_call_id, expires_at } = fields;
  return { run_id, input_id, kind, message, choices, schema, tool_name, tool_call_id, expires_at };
}

/** Clients send the metadata of a message back with every later request. */
function metadataOf({ epoch, seq, fields: { run_id, thread_id, agent_name } }: RunEvent): object {
  return { tollgate: { epoch, seq, run_id, thread_id, agent: agent_name } };
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
