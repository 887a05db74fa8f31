import { z } from 'zod';
import { derivedId, newId } from '../../lib/ids.ts';
import { type ClientTool, clientToolsOf } from '../../protocol/client-tools.ts';
import { TollgateError } from '../../protocol/errors.ts';
import { CLIENT_MESSAGES } from '../../protocol/messages.ts';

/**
 * A run that has ended can be resumed for this time. Its end may not have reached a client whose network was lost
 * without notice, and with 204 that client would show half of the answer for ever. For a client that has the answer,
 * the replay builds the same message again.
 */
export const RESUMABLE_MS = 5 * 60_000;

const { agent, message: text } = CLIENT_MESSAGES.agent_request.fields.shape;
const id = z.string().min(1).max(128);

/**
 * A UI message, as far as it is read: only the last message matters, and only if the user wrote it, or the answers in
 * it to what a run waits for (see `answers.ts`). The conversation itself is the thread in Tollgate; what else a client
 * claims about it, results of Tollgate's tools included, is not trusted.
 */
const Message = z.looseObject({
  id: z.string().max(128).optional(),
  role: z.enum(['system', 'user', 'assistant']),
  parts: z.array(z.looseObject({ type: z.string().max(128) })).max(10_000),
  metadata: z.unknown().optional(),
});

/** The body of the AI SDK's transports. */
export const ChatBody = z
  .looseObject({
    id: id.optional().describe('The chat; without one, the first message names it.'),
    messages: z.array(Message).min(1).max(10_000).describe('The conversation; only its last message is used.'),
    trigger: z.enum(['submit-message', 'regenerate-message']).default('submit-message'),
    messageId: z.string().max(128).optional().describe('The message that is written again.'),
    agent: agent.describe('The agent that answers.'),
    tools: z
      .array(z.unknown())
      .optional()
      .describe('Tools of the page, which the agent may call: `{ name, description, inputSchema }`.'),
  })
  .meta({
    id: 'ChatRequest',
    examples: [
      {
        id: 'chat-1',
        trigger: 'submit-message',
        messages: [{ id: 'msg-1', role: 'user', parts: [{ type: 'text', text: 'How is my workload doing?' }] }],
      },
    ],
  });
export type ChatBody = z.infer<typeof ChatBody>;

/** The run that a chat request asks for. */
export interface ChatRun {
  readonly requestId: string;
  readonly runId: string;
  readonly threadId: string;
  readonly agent: string | undefined;
  readonly message: string;
  readonly clientTools: readonly ClientTool[];
}

/**
 * Reads the request for a run. Repeated with the same chat and the same last message, it names the same run.
 * @throws TollgateError FORMAT_ERROR that names the field
 */
export function chatRun(userId: string, body: ChatBody): ChatRun {
  const at = body.messages.length - 1;
  const last = body.messages[at];
  if (last?.role !== 'user') {
    const reason = 'the last message must be of the user, or contain answers: approvals, or results of your tools';
    throw formatError(`messages.${at}.role`, reason);
  }
  const message = textOf(last, at);
  const chatId = body.id ?? body.messages[0]?.id;
  const threadId = chatId === undefined ? newId('thread') : threadOf(userId, chatId);
  const requestId = requestIdOf(threadId, body, last.id, message);
  const clientTools = clientToolsOf(body.tools, 'inputSchema');
  return { requestId, runId: derivedId('run', userId, requestId), threadId, agent: body.agent, message, clientTools };
}

/** The thread of a chat: its own id, so that other clients of the user find it, unless that is no id of a thread. */
export function threadOf(userId: string, chatId: string): string {
  return /^[\w-]{1,64}$/.test(chatId) ? chatId : derivedId('thread', userId, chatId);
}

function requestIdOf(threadId: string, body: ChatBody, messageId: string | undefined, message: string): string {
  if (messageId === undefined) return newId('req');
  if (body.trigger === 'submit-message') return derivedId('req', threadId, messageId, message);
  // A regeneration repeats the message. Only the id of the answer that it replaces tells it from another one.
  if (body.messageId === undefined) return newId('req');
  return derivedId('req', threadId, messageId, message, body.messageId);
}

function textOf({ parts }: z.infer<typeof Message>, at: number): string {
  const texts = parts.map((part, index) => {
    if (part.type !== 'text' || typeof part.text !== 'string') {
      throw formatError(`messages.${at}.parts.${index}`, 'only text parts are supported');
    }
    return part.text;
  });
  const message = text.safeParse(texts.join('\n'));
  if (!message.success) throw formatError(`messages.${at}.parts`, 'must contain text');
  return message.data;
}

export function formatError(field: string, reason: string): TollgateError {
  return new TollgateError('FORMAT_ERROR', { text: `"${field}": ${reason}.`, fields: { field } });
}
