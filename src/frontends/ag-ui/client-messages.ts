import type { AgUiEvent, RunMessage, ToolCallEntry, ToolMessage } from './events.ts';

/**
 * Applies an event to the messages of a run exactly as AG-UI clients do, so that a snapshot of them equals what a
 * client has that received every event. Returns new messages; events of other kinds change none.
 */
export function applied(messages: readonly RunMessage[], event: AgUiEvent): readonly RunMessage[] {
  switch (event.type) {
    case 'TEXT_MESSAGE_START':
      return withMessage(messages, { id: event.messageId, role: 'assistant', content: '' }, event);
    case 'REASONING_MESSAGE_START':
      return withMessage(messages, { id: event.messageId, role: 'reasoning', content: '' }, event);
    case 'TEXT_MESSAGE_CONTENT':
    case 'REASONING_MESSAGE_CONTENT':
      return changed(messages, event.messageId, (message) => merged(appended(message, event.delta), event));
    case 'TEXT_MESSAGE_END':
    case 'REASONING_MESSAGE_END':
      return changed(messages, event.messageId, (message) => merged(message, event));
    case 'TOOL_CALL_START':
      return withCall(messages, event);
    case 'TOOL_CALL_ARGS':
      return withChangedCall(messages, event.toolCallId, (call) => {
        const { name, arguments: before } = call.function;
        return merged({ ...call, function: { name, arguments: before + event.delta } }, event);
      });
    case 'TOOL_CALL_END':
      return withChangedCall(messages, event.toolCallId, (call) => merged(call, event));
    case 'TOOL_CALL_RESULT':
      return withResult(messages, event);
    default:
      return messages;
  }
}

/** Keys of the metadata replace those of earlier events. All of ours are below one key. */
function merged<T extends { readonly metadata?: AgUiEvent['metadata'] }>(target: T, { metadata }: AgUiEvent): T {
  return metadata === undefined ? target : { ...target, metadata };
}

function appended(message: RunMessage, delta: string): RunMessage {
  return { ...message, content: (message.content ?? '') + delta };
}

function changed(
  messages: readonly RunMessage[],
  id: string,
  change: (message: RunMessage) => RunMessage,
): readonly RunMessage[] {
  return messages.map((message) => (message.id === id ? change(message) : message));
}

function withMessage(messages: readonly RunMessage[], message: RunMessage, event: AgUiEvent): readonly RunMessage[] {
  if (messages.some(({ id }) => id === message.id)) return changed(messages, message.id, (old) => merged(old, event));
  return [...messages, merged(message, event)];
}

type Started = Extract<AgUiEvent, { readonly type: 'TOOL_CALL_START' }>;
type Answered = Extract<AgUiEvent, { readonly type: 'TOOL_CALL_RESULT' }>;

function withCall(messages: readonly RunMessage[], event: Started): readonly RunMessage[] {
  const { toolCallId: id, toolCallName: name, parentMessageId } = event;
  const call = merged<ToolCallEntry>({ id, type: 'function', function: { name, arguments: '' } }, event);
  if (!messages.some((message) => message.id === parentMessageId)) {
    return [...messages, { id: parentMessageId, role: 'assistant', toolCalls: [call] }];
  }
  return changed(messages, parentMessageId, (message) => {
    return message.role === 'assistant' ? { ...message, toolCalls: [...(message.toolCalls ?? []), call] } : message;
  });
}

function withChangedCall(
  messages: readonly RunMessage[],
  callId: string,
  change: (call: ToolCallEntry) => ToolCallEntry,
): readonly RunMessage[] {
  return messages.map((message) => {
    if (message.role !== 'assistant' || !isCaller(message, callId)) return message;
    return {
      ...message,
      toolCalls: message.toolCalls?.map((call) => (call.id === callId ? change(call) : call)) ?? [],
    };
  });
}

/** Clients put a result behind the message that has the call, after the results that are already there. */
function withResult(messages: readonly RunMessage[], event: Answered): readonly RunMessage[] {
  const { messageId: id, toolCallId, content, role } = event;
  return withToolMessage(messages, merged<ToolMessage>({ id, toolCallId, role, content }, event));
}

/** Adds the result of a call at the place where clients put it. */
export function withToolMessage(messages: readonly RunMessage[], result: ToolMessage): readonly RunMessage[] {
  const { toolCallId } = result;
  const owner = messages.findIndex((message) => isCaller(message, toolCallId));
  if (owner === -1) return [...messages, result];
  let at = owner + 1;
  while (messages[at]?.role === 'tool') at++;
  return messages.toSpliced(at, 0, result);
}

function isCaller(message: RunMessage, callId: string): boolean {
  return message.role === 'assistant' && message.toolCalls?.some(({ id }) => id === callId) === true;
}
