import type { Fields } from '../../protocol/messages.ts';
import type { RunEvent } from '../run-events.ts';
import { applied, withToolMessage } from './client-messages.ts';
import type { AgUiEvent, HistoryMessage, Outcome, RunMessage, TokenUsage, ToolMessage } from './events.ts';
import { OpenInputs } from './open-inputs.ts';
import { OpenMessages, wholeText } from './open-messages.ts';
import { activityOf, stateOf } from './remote-state.ts';

export interface RunNames {
  /** The thread and the run as the client names them. */
  readonly threadId: string;
  readonly runId: string;
  /** The version that the client speaks; undefined for clients before 1.0, which reject the outcome `cancelled`. */
  readonly protocolVersion: string | undefined;
  /** The run as Tollgate names it. */
  readonly tollgateRunId: string;
  /** Fields of the input that have no effect, reported with the start. */
  readonly ignored?: readonly string[];
}

/** Name of the CUSTOM event with an interrupt, for clients before AG-UI 1.0. */
const INPUT_REQUESTED = 'tollgate.input_requested';
/** Largest history, in characters of JSON, that a stream keeps for the snapshot of a replaced step. */
const KEPT_HISTORY = 64 * 1024;

/**
 * Maps the events of one run, in order, to AG-UI events. The result depends on the events only, so that it is the same
 * on every node, live and after a reconnection.
 *
 * It keeps the messages of the run for the snapshots that clients need when they come back, and when a step replaces an
 * interrupted one. Their size is bounded by that of the event log.
 */
export class AgUiRun {
  readonly #names: RunNames;
  readonly #results: ReadonlyMap<string, ToolMessage>;
  /** Undefined once it has been released. */
  #history: readonly HistoryMessage[] | undefined;
  /** The message of the user, if the history does not end with it: another client sent it. */
  #question: HistoryMessage | undefined;
  #messages: readonly RunMessage[] = [];
  readonly #open = new OpenMessages();
  /** Message to which the next tool calls belong; undefined if the latest one has got results. */
  #caller: string | undefined;
  /** State and activities of a remote agent: the latest snapshot of each with the changes to it, by name. */
  readonly #states = new Map<string, readonly AgUiEvent[]>();
  readonly #inputs = new OpenInputs();
  #started: AgUiEvent | undefined;
  #end: AgUiEvent | undefined;
  #head: RunEvent | undefined;

  /**
   * @param history the messages of the conversation before the answer of this run
   * @param results the client's own results of its tools in this run, by the id of the call: the client keeps them
   */
  constructor(
    names: RunNames,
    history: readonly HistoryMessage[],
    results: ReadonlyMap<string, ToolMessage> = new Map(),
  ) {
    this.#names = names;
    this.#history = history;
    this.#results = results;
  }

  /** Whether the run has its terminal event. */
  get hasEnded(): boolean {
    return this.#end !== undefined;
  }

  /** Whether the run can only continue with an answer of its user. */
  get isPaused(): boolean {
    return this.#inputs.isPaused && !this.hasEnded;
  }

  /**
   * Ends the run of the client while the run waits for its user: AG-UI continues it by another run with the answers, or
   * with the results of the client's tools if it waits for nothing else.
   * Clients before 1.0 do not know interrupts. They receive the requests as CUSTOM events.
   */
  interrupted(): readonly AgUiEvent[] {
    const { interrupts, pendingCalls } = this.#inputs;
    const isOlder = this.#names.protocolVersion === undefined;
    const requests: readonly AgUiEvent[] = isOlder
      ? interrupts.map((value) => ({ type: 'CUSTOM', name: INPUT_REQUESTED, value }))
      : [];
    const end =
      interrupts.length > 0
        ? this.#finished({}, { type: 'interrupt', interrupts })
        : this.#finished({}, { type: 'success', pendingToolCallIds: pendingCalls });
    return [...this.#open.close(), ...requests, { ...end, ...this.#position }];
  }

  /** Maps the next event of the run. The last of the returned events carries the position in the log. */
  add(event: RunEvent): readonly AgUiEvent[] {
    this.#head = event;
    this.#inputs.add(event);
    const events = this.#eventsOf(event);
    const last = events.at(-1);
    if (!last) return [];
    const timestamp = timeOf(event);
    const stamped = events.map((each) => ({ ...each, timestamp }));
    stamped[stamped.length - 1] = { ...last, timestamp, metadata: metadataOf(event, this.#names.ignored) };
    for (const each of stamped) {
      this.#messages = applied(this.#messages, each);
      const own = each.type === 'TOOL_CALL_END' && this.#ownResult(event.fields);
      if (own) this.#messages = withToolMessage(this.#messages, own);
      if (each.type === 'RUN_STARTED') this.#started = each;
      if (each.type === 'RUN_FINISHED' || each.type === 'RUN_ERROR') this.#end = each;
    }
    return stamped;
  }

  /**
   * Brings a client, regardless of what it received before, to the state after the last event that was added: the
   * events that `add` returns from here on continue it. Replayed deltas would be appended to what the client has, so
   * the messages come as a snapshot.
   */
  prelude(): readonly AgUiEvent[] {
    this.#started ??= this.#runStarted();
    const states = [...this.#states.values()].flat();
    const end = this.#end ? [this.#end] : [];
    return [this.#started, { ...this.#snapshot(), ...this.#position }, ...states, ...this.#open.reopened(), ...end];
  }

  /**
   * Releases a history that is too large to be kept for each stream. The text of an interrupted step then stays in the
   * client until it comes back.
   */
  releaseHistory(): void {
    if (this.#history && JSON.stringify(this.#history).length > KEPT_HISTORY) this.#history = undefined;
  }

  #eventsOf({ type, fields }: RunEvent): readonly AgUiEvent[] {
    if (this.#end) return [];
    switch (type) {
      case 'agent_started':
        this.#question = this.#missingQuestion(text(fields.message));
        if (this.#started === undefined) return [this.#runStarted()];
        // The prelude has started the run of the client already: the run waited in the queue.
        return this.#question ? [this.#snapshot()] : [];
      case 'agent_thinking':
        return this.#text(fields);
      case 'agent_reasoning':
        return this.#reasoning(fields);
      case 'agent_state':
        return this.#state('state', stateOf(fields));
      case 'agent_activity':
        return this.#state(text(fields.activity_id), activityOf(fields, this.#id(text(fields.activity_id))));
      case 'tool_executing':
        return this.#toolCall(fields);
      case 'tool_completed':
        return this.#toolResult(fields);
      case 'agent_completed':
        return [...this.#answer(text(fields.final_response)), this.#finished(fields, { type: 'success' })];
      case 'agent_failed':
        return [...this.#open.close(), runError(fields)];
      case 'agent_cancelled':
        return [...this.#open.close(), this.#finished(fields, { type: 'cancelled' })];
      default:
        return [];
    }
  }

  #missingQuestion(message: string): HistoryMessage | undefined {
    const last = this.#history?.findLast(({ role }) => role === 'user');
    if (last && questionOf(last) === message) return undefined;
    return { id: questionId(this.#names.tollgateRunId), role: 'user', content: message };
  }

  #runStarted(): AgUiEvent {
    const { threadId, runId, protocolVersion } = this.#names;
    return { type: 'RUN_STARTED', threadId, runId, ...(protocolVersion === undefined ? {} : { protocolVersion }) };
  }

  #finished(fields: Fields, outcome: Outcome): AgUiEvent {
    const { threadId, runId, protocolVersion } = this.#names;
    return {
      type: 'RUN_FINISHED',
      threadId,
      runId,
      ...(protocolVersion === undefined ? {} : { outcome }),
      ...usageOf(fields),
    };
  }

  #text(fields: Fields): readonly AgUiEvent[] {
    const { step } = fields;
    const replaced = this.#replace(fields);
    const kept = this.#open.find((open) => open.kind === 'text' && open.step === step);
    // Such an event only replaces a step.
    if (!kept && fields.thought === '') return replaced;
    const closed = this.#open.close((open) => open !== kept);
    const id = kept?.id ?? this.#newId(`${step}`);
    const opened = kept ? [] : this.#open.open({ kind: 'text', id, step });
    if (!kept) this.#caller = id;
    const content: AgUiEvent = { type: 'TEXT_MESSAGE_CONTENT', messageId: id, delta: text(fields.thought) };
    return [...replaced, ...closed, ...opened, content];
  }

  #reasoning(fields: Fields): readonly AgUiEvent[] {
    const { step } = fields;
    const replaced = this.#replace(fields);
    // The text of the same step stays open: a model can reason between two parts of it.
    const closed = this.#open.close((open) => open.step !== step);
    const kept = this.#open.find(({ kind }) => kind === 'reasoning');
    const id = kept?.id ?? this.#newId(`${step}-reasoning`);
    const opened = kept ? [] : this.#open.open({ kind: 'reasoning', id, step });
    const content: AgUiEvent = { type: 'REASONING_MESSAGE_CONTENT', messageId: id, delta: text(fields.reasoning) };
    return [...replaced, ...closed, ...opened, content];
  }

  /**
   * Keeps what a client needs to restore a state. Changes without a snapshot are not kept: a client that has them would
   * apply them twice.
   */
  #state(name: string, event: AgUiEvent | undefined): readonly AgUiEvent[] {
    if (!event) return [];
    const isSnapshot = event.type === 'STATE_SNAPSHOT' || event.type === 'ACTIVITY_SNAPSHOT';
    const before = this.#states.get(name);
    if (isSnapshot) this.#states.set(name, [event]);
    else if (before) this.#states.set(name, [...before, event]);
    return [event];
  }

  #toolCall(fields: Fields): readonly AgUiEvent[] {
    const closed = this.#open.close();
    const toolCallId = text(fields.tool_call_id);
    this.#caller ??= this.#newId(toolCallId);
    return [
      ...closed,
      {
        type: 'TOOL_CALL_START',
        toolCallId,
        toolCallName: text(fields.tool_name),
        parentMessageId: this.#caller,
      },
      { type: 'TOOL_CALL_ARGS', toolCallId, delta: JSON.stringify(fields.arguments ?? {}) },
      { type: 'TOOL_CALL_END', toolCallId },
    ];
  }

  /** The client's own message with the result of a call of one of its tools. */
  #ownResult({ client, tool_call_id }: Fields): ToolMessage | undefined {
    return client === true ? this.#results.get(text(tool_call_id)) : undefined;
  }

  #toolResult(fields: Fields): readonly AgUiEvent[] {
    const toolCallId = text(fields.tool_call_id);
    // Clients execute only calls in messages that are new to them.
    if (fields.client === true) this.#caller = undefined;
    if (this.#ownResult(fields)) return this.#open.close();
    const answer = fields.success === true ? fields.result : { error: fields.error };
    return [
      ...this.#open.close(),
      {
        type: 'TOOL_CALL_RESULT',
        messageId: `${this.#names.tollgateRunId}-${toolCallId}-result`,
        toolCallId,
        content: typeof answer === 'string' ? answer : (JSON.stringify(answer) ?? ''),
        role: 'tool',
      },
    ];
  }

  /** The answer of the run, if it is not the text that the client already has as its last message. */
  #answer(answer: string): readonly AgUiEvent[] {
    const closed = this.#open.close();
    const last = this.#messages.findLast(({ role }) => role === 'assistant');
    if (answer === '' || last?.content?.trim() === answer.trim()) return closed;
    return [...closed, ...wholeText(this.#newId('answer'), answer)];
  }

  /** Removes the text of an interrupted step. AG-UI removes messages by a snapshot without them. */
  #replace({ replaces_step: step }: Fields): readonly AgUiEvent[] {
    if (step === undefined || !this.#history) return [];
    const prefix = this.#id(`${step}`);
    const isReplaced = ({ id, role }: RunMessage) =>
      role === 'assistant' && (id === prefix || id.startsWith(`${prefix}.`));
    if (!this.#messages.some(isReplaced)) return [];
    const closed = this.#open.close();
    for (const each of closed) this.#messages = applied(this.#messages, each);
    this.#messages = this.#messages.filter((message) => !isReplaced(message));
    return [...closed, this.#snapshot()];
  }

  #snapshot(): AgUiEvent {
    const question = this.#question ? [this.#question] : [];
    return { type: 'MESSAGES_SNAPSHOT', messages: [...(this.#history ?? []), ...question, ...this.#messages] };
  }

  /** Time of the latest event and its position in the log, as fields of an event; undefined before the first event. */
  get #position() {
    if (!this.#head) return undefined;
    const { epoch, seq } = this.#head;
    return { timestamp: timeOf(this.#head), metadata: { tollgate: { epoch, seq } } };
  }

  #id(name: string): string {
    return `${this.#names.tollgateRunId}-${name}`;
  }

  /** An id of the run that no message has yet. A step has several texts only if other events interrupt it. */
  #newId(name: string): string {
    const isUsed = (id: string) => this.#messages.some((message) => message.id === id);
    const id = this.#id(name);
    for (let part = 1; ; part++) {
      const candidate = part === 1 ? id : `${id}.${part}`;
      if (!isUsed(candidate)) return candidate;
    }
  }
}

/** Id of the message that started a run, for clients that did not send it themselves. */
export function questionId(tollgateRunId: string): string {
  return `${tollgateRunId}-user`;
}

function timeOf({ fields }: RunEvent): number {
  return Date.parse(text(fields.timestamp));
}

function runError(fields: Fields): AgUiEvent {
  const { code, message } = (fields.error ?? {}) as { code?: unknown; message?: unknown };
  return { type: 'RUN_ERROR', code: text(code) || 'INTERNAL_ERROR', message: text(message), ...usageOf(fields) };
}

/** Own data of an event. Clients fold it into messages and send it back with them. */
function metadataOf(
  { type, epoch, seq, fields }: RunEvent,
  ignored: readonly string[] = [],
): NonNullable<AgUiEvent['metadata']> {
  const { usage_record_id, duration_ms, finish_reason, error, run_id, thread_id } = fields;
  const start = { run_id, thread_id, ignored: ignored.length > 0 ? ignored : undefined };
  const own = { usage_record_id, duration_ms, finish_reason, error, ...(type === 'agent_started' ? start : {}) };
  const present = Object.entries(own).filter(([, value]) => value !== undefined && value !== null);
  return { tollgate: { epoch, seq, ...Object.fromEntries(present) } };
}

/** Tokens per model that the run was billed for. Events of earlier versions have none. */
function usageOf({ usage }: Fields): { usage?: readonly TokenUsage[] } {
  if (!Array.isArray(usage)) return {};
  const entries = usage.map(({ model, input_tokens, output_tokens }) => ({
    model: text(model),
    inputTokens: Number(input_tokens),
    outputTokens: Number(output_tokens),
    totalTokens: Number(input_tokens) + Number(output_tokens),
  }));
  return { usage: entries };
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** The text of a message of a user, which clients store as a string or as parts. */
function questionOf({ content }: HistoryMessage): string {
  if (!Array.isArray(content)) return text(content);
  return content.map((part) => text((part as { text?: unknown } | null)?.text)).join('\n');
}
