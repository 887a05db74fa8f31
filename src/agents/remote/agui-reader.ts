import type { Clock } from '../../lib/clock.ts';
import { foreignRequest } from '../../protocol/forms.ts';
import type { Fields } from '../../protocol/messages.ts';
import type { ReportedTokens } from '../../runs/remote-log.ts';
import { asList, asObject, asText } from '../model/json.ts';
import { RemoteFault } from './fault.ts';
import { RemoteCalls } from './remote-calls.ts';
import { RemoteState } from './remote-state.ts';
import { type Ask, isClientTool } from './rounds.ts';
import { sumOfTokens, type Turn, tokensOf } from './turn.ts';

/** A call that the agent left to its client. */
type PendingCall = Extract<Ask, { readonly tool: string }>;

/** The end of one AG-UI run. */
export interface RunEnd {
  readonly tokens: ReportedTokens | undefined;
  /** Calls that the agent left to its client, and its interrupts. */
  readonly asks: readonly Ask[];
}

interface OpenCall {
  readonly tool: string;
  args: string;
}

const MAX_CALLS = 1_000;
const MAX_ID = 512;
const CHUNKS = new Set(['TEXT_MESSAGE_CHUNK', 'TOOL_CALL_CHUNK', 'REASONING_MESSAGE_CHUNK']);
/** Events that only delimit others. */
const DELIMITERS = new Set([
  'RUN_STARTED',
  'REASONING_START',
  'REASONING_END',
  'REASONING_MESSAGE_START',
  'REASONING_MESSAGE_END',
  'THINKING_START',
  'THINKING_END',
  'THINKING_TEXT_MESSAGE_START',
  'THINKING_TEXT_MESSAGE_END',
]);

/**
 * Reads the events of an AG-UI agent, of both generations (0.0.x and 1.0). It is lenient in their order and in unknown
 * fields, and requires the terminal event: a stream that ends without it was cut.
 */
export class AguiReader {
  /** Text of the last message of the assistant. */
  text = '';
  readonly state: RemoteState;
  readonly #turn: Turn;
  readonly #calls: RemoteCalls;
  readonly #open = new Map<string, OpenCall>();
  readonly #pending = new Map<string, PendingCall>();
  #message: string | undefined;
  #chunkedCall: string | undefined;
  /** Text of the last message in the latest snapshot, for agents that stream none. */
  #snapshot: string | undefined;

  constructor(turn: Turn, clock: Clock, state: unknown) {
    this.#turn = turn;
    this.#calls = new RemoteCalls(turn.context.remote, clock);
    this.state = new RemoteState(state);
  }

  /** Reads one run. @throws RemoteFault */
  async read(events: AsyncIterable<unknown>): Promise<RunEnd> {
    this.#pending.clear();
    for await (const value of events) {
      const event = asObject(value);
      const type = asText(event?.type);
      if (!event || type === undefined) throw new RemoteFault('invalid', 'an event has no type');
      if (!CHUNKS.has(type)) await this.#endChunks();
      if (type === 'RUN_FINISHED') return this.#finished(event);
      if (type === 'RUN_ERROR') throw errorOf(event);
      await this.#event(type, event);
    }
    throw new RemoteFault('interrupted', 'the stream ended without RUN_FINISHED');
  }

  async #event(type: string, event: Fields): Promise<void> {
    const { remote } = this.#turn.context;
    switch (type) {
      case 'TEXT_MESSAGE_START':
        return this.#startMessage(event);
      case 'TEXT_MESSAGE_CONTENT':
      case 'TEXT_MESSAGE_CHUNK':
        return this.#addText(event);
      case 'TEXT_MESSAGE_END':
        return remote.endMessage();
      case 'REASONING_MESSAGE_CONTENT':
      case 'REASONING_MESSAGE_CHUNK':
      case 'THINKING_TEXT_MESSAGE_CONTENT':
        return remote.reasoning(deltaOf(event));
      case 'STATE_SNAPSHOT':
        this.state.replace(event.snapshot);
        return remote.event('agent_state', { snapshot: event.snapshot ?? null });
      case 'STATE_DELTA': {
        const delta = asList(event.delta);
        this.state.patch(delta);
        return remote.event('agent_state', { delta });
      }
      case 'MESSAGES_SNAPSHOT':
        return this.#keepSnapshot(event);
      default:
        if (type.startsWith('TOOL_CALL_')) return this.#call(type, event);
        if (await this.#activity(type, event)) return;
        if (!DELIMITERS.has(type)) this.#turn.ignored(type);
    }
  }

  /** Appends what the agent is doing, for display. */
  async #activity(type: string, event: Fields): Promise<boolean> {
    const fields = activityOf(type, event);
    if (fields) await this.#turn.context.remote.event('agent_activity', fields);
    return fields !== undefined;
  }

  #startMessage({ messageId, role, subagentRunId }: Fields): void {
    if ((role !== undefined && role !== 'assistant') || subagentRunId !== undefined) return;
    this.#switchTo(asText(messageId));
  }

  async #addText(event: Fields): Promise<void> {
    const { remote } = this.#turn.context;
    const delta = deltaOf(event);
    // What a subagent writes is no part of the answer.
    if (event.subagentRunId !== undefined) return remote.reasoning(delta);
    if (event.role !== undefined && event.role !== 'assistant') return this.#turn.ignored('text of another role');
    this.#switchTo(asText(event.messageId) ?? this.#message);
    this.text += delta;
    return remote.text(delta);
  }

  #switchTo(message: string | undefined): void {
    if (message === this.#message && message !== undefined) return;
    this.#turn.context.remote.endMessage();
    this.#message = message;
    this.text = '';
  }

  async #call(type: string, event: Fields): Promise<void> {
    const id = asText(event.toolCallId) ?? this.#chunkedCall ?? '';
    switch (type) {
      case 'TOOL_CALL_START':
        return this.#startCall(id, event);
      case 'TOOL_CALL_CHUNK':
        if (id !== this.#chunkedCall) await this.#endChunks();
        if (!this.#open.has(id)) this.#startCall(id, event);
        this.#chunkedCall = id;
        return this.#addArguments(id, asText(event.delta) ?? '');
      case 'TOOL_CALL_ARGS':
        return this.#addArguments(id, deltaOf(event));
      case 'TOOL_CALL_END':
        return this.#endCall(id);
      case 'TOOL_CALL_RESULT':
        return this.#result(id, event);
      default:
        this.#turn.ignored(type);
    }
  }

  #startCall(id: string, { toolCallName }: Fields): void {
    const tool = asText(toolCallName);
    if (tool === undefined || id === '') throw new RemoteFault('invalid', 'a call without id or name');
    if (this.#open.size >= MAX_CALLS) throw new RemoteFault('too_large', `more than ${MAX_CALLS} open calls`);
    this.#open.set(id, { tool, args: '' });
  }

  #addArguments(id: string, delta: string): void {
    const call = this.#open.get(id);
    if (!call) throw new RemoteFault('invalid', 'arguments of a call that is not open');
    call.args += delta;
  }

  /** A call of a tool that was offered waits for the end of the run; others are the agent's own. */
  async #endCall(id: string): Promise<void> {
    const call = this.#open.get(id);
    if (!call) return;
    this.#open.delete(id);
    const { task } = this.#turn;
    const isOffered = task.tools.includes(call.tool) || isClientTool(task, call.tool);
    if (!isOffered) return this.#calls.begin(id, call.tool, call.args);
    if (this.#pending.size >= MAX_CALLS) throw new RemoteFault('too_large', `more than ${MAX_CALLS} pending calls`);
    this.#pending.set(id, { id, tool: call.tool, arguments: call.args });
  }

  async #result(id: string, { content }: Fields): Promise<void> {
    await this.#endCall(id);
    // The agent has a tool with the same name.
    const own = this.#pending.get(id);
    if (own && this.#pending.delete(id)) await this.#calls.begin(id, own.tool, own.arguments);
    if (!(await this.#calls.end(id, { success: true, result: content ?? null })))
      this.#turn.ignored('result without call');
  }

  async #endChunks(): Promise<void> {
    const id = this.#chunkedCall;
    this.#chunkedCall = undefined;
    if (id !== undefined) await this.#endCall(id);
  }

  #keepSnapshot({ messages }: Fields): void {
    const last = asObject(asList(messages).at(-1));
    this.#snapshot = last?.role === 'assistant' ? asText(last.content) : undefined;
  }

  async #finished({ outcome, usage }: Fields): Promise<RunEnd> {
    const tokens = sumOfTokens(asList(usage).map(tokensOf));
    const { type = 'success', pendingToolCallIds, interrupts } = asObject(outcome) ?? {};
    if (type === 'interrupt') return { tokens, asks: await this.#interrupted(asList(interrupts)) };
    if (type === 'cancelled') throw new RemoteFault('cancelled', 'the agent cancelled its run', { tokens });
    if (type !== 'success') throw new RemoteFault('invalid', 'an unknown outcome', { tokens });
    for (const id of [...this.#open.keys()]) await this.#endCall(id);
    const waits = Array.isArray(pendingToolCallIds) ? new Set<unknown>(pendingToolCallIds) : undefined;
    const pending = [...this.#pending.values()].filter(({ id }) => waits?.has(id) ?? true);
    await this.#calls.endAll();
    if (pending.length === 0 && this.text === '' && this.#snapshot) {
      this.text = this.#snapshot.toWellFormed();
      await this.#turn.context.remote.text(this.text);
    }
    return { tokens, asks: pending };
  }

  /** A call that an interrupt is about is made again once the interrupt is answered. */
  async #interrupted(interrupts: readonly unknown[]): Promise<readonly Ask[]> {
    const asks = interrupts.map((value): Ask => {
      const { id, reason, message, responseSchema: schema } = asObject(value) ?? {};
      const name = asText(id);
      if (name === undefined || name.length > MAX_ID) throw new RemoteFault('invalid', 'an interrupt without id');
      return { id: name, request: foreignRequest(message ?? reason, schema).request, schema };
    });
    if (asks.length === 0) throw new RemoteFault('invalid', 'an outcome without interrupts');
    const about = new Set(interrupts.map((value) => asObject(value)?.toolCallId));
    await this.#calls.endAll();
    return [...[...this.#pending.values()].filter(({ id }) => !about.has(id)), ...asks];
  }
}

function activityOf(type: string, event: Fields): Fields | undefined {
  const id = (value: unknown) => asText(value)?.slice(0, 128) ?? '';
  switch (type) {
    case 'ACTIVITY_SNAPSHOT':
      return {
        activity_id: id(event.messageId),
        activity_type: id(event.activityType),
        content: event.content ?? null,
      };
    case 'ACTIVITY_DELTA':
      return { activity_id: id(event.messageId), activity_type: id(event.activityType), patch: asList(event.patch) };
    case 'STEP_STARTED':
    case 'STEP_FINISHED': {
      const status = type === 'STEP_STARTED' ? 'started' : 'finished';
      return { activity_id: id(event.stepName), activity_type: 'step', content: { status } };
    }
    case 'SUBAGENT_STARTED':
    case 'SUBAGENT_FINISHED':
    case 'SUBAGENT_ERROR': {
      const status = type.slice('SUBAGENT_'.length).toLowerCase();
      return { activity_id: id(event.subagentRunId), activity_type: 'subagent', content: { status } };
    }
    case 'CUSTOM':
      return { activity_id: id(event.name), activity_type: 'custom', content: event.value ?? null };
    default:
      return undefined;
  }
}

function deltaOf({ delta }: Fields): string {
  const text = asText(delta);
  if (text === undefined) throw new RemoteFault('invalid', 'a delta is no text');
  return text;
}

function errorOf({ code, usage }: Fields): RemoteFault {
  const tokens = sumOfTokens(asList(usage).map(tokensOf));
  return new RemoteFault('error', 'the agent reported RUN_ERROR', { agentCode: asText(code), tokens });
}
