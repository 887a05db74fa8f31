import { z } from 'zod';
import type { AgentDescription } from '../../catalogue/agent-catalogue.ts';
import { derivedId } from '../../lib/ids.ts';
import { TollgateError } from '../../protocol/errors.ts';
import type { HistoryMessage, ToolMessage } from './events.ts';

/** Longest ids of a client. Its own are UUIDs. */
const ID_LENGTH = 255;
const MESSAGES = 10_000;
const REQUEST_ID_LENGTH = 128;
/** Ids of the messages that a run of Tollgate builds. */
const OWN_ID = /^run_[\w-]{20}-/;
const THREAD_ID = /^[\w-]{1,64}$/;

const id = z
  .string()
  .min(1)
  .max(ID_LENGTH)
  .refine((value) => value.isWellFormed(), 'must not contain a lone surrogate');
const Message = z.looseObject({ id, role: z.string().min(1).max(32) });

/** An answer to an interrupt. */
const ResumeEntry = z.looseObject({
  interruptId: z.string().min(1).max(128),
  status: z.enum(['resolved', 'cancelled']),
  payload: z.unknown().optional(),
});
export type ResumeEntry = z.infer<typeof ResumeEntry>;

/** `RunAgentInput` of AG-UI 1.0, as far as the gateway reads it. Other fields are accepted and reported as ignored. */
export const RunAgentInput = z
  .looseObject({
    threadId: id.describe('Thread of the user. Each user has threads of their own.'),
    runId: id.describe('Names the run within its thread: the same request starts it once.'),
    messages: z
      .array(Message)
      .max(MESSAGES)
      .describe(
        'The conversation. Only the last message is read if the user wrote it, or the tool messages at its end.',
      ),
    protocolVersion: z.string().max(32).optional(),
    tools: z.array(z.unknown()).optional().describe('Tools of the page, which the agent may call.'),
    context: z.array(z.unknown()).optional(),
    state: z.unknown().optional(),
    forwardedProps: z.unknown().optional(),
    resume: z
      .array(ResumeEntry)
      .max(64)
      .optional()
      .describe('Answers to the interrupts of a run of the thread, which then continues.'),
  })
  .meta({
    id: 'RunAgentInput',
    examples: [
      {
        threadId: 'thread-1',
        runId: 'run-1',
        messages: [{ id: 'message-1', role: 'user', content: 'How is my workload doing?' }],
        state: {},
        tools: [],
        context: [],
        forwardedProps: {},
        protocolVersion: '1.0',
      },
    ],
  });
export type RunAgentInput = z.infer<typeof RunAgentInput>;

/** Tollgate's names of a run, its thread and its request, derived from the client's. */
export interface InputNames {
  readonly threadId: string;
  readonly requestId: string;
  readonly runId: string;
}

/**
 * Names of a run and its thread, derived so that every node finds them. A thread id that Tollgate accepts is kept, so
 * that the same thread can be used over other transports.
 */
export function namesOf(userId: string, { threadId, runId }: Pick<RunAgentInput, 'threadId' | 'runId'>): InputNames {
  const plain = requestPrefix(threadId) + runId;
  const requestId = plain.length <= REQUEST_ID_LENGTH ? plain : derivedId('req', threadId, runId);
  return {
    threadId: THREAD_ID.test(threadId) ? threadId : derivedId('thread', userId, threadId),
    requestId,
    runId: derivedId('run', userId, requestId),
  };
}

/** The client's name of a run; undefined if another front end started it, or its ids are too long to be stored. */
export function clientRunId(threadId: string, requestId: string): string | undefined {
  const prefix = requestPrefix(threadId);
  return requestId.startsWith(prefix) ? requestId.slice(prefix.length) : undefined;
}

function requestPrefix(threadId: string): string {
  return `agui:${threadId}:`;
}

/**
 * The text of the last message; undefined if the user did not write it. The messages before it come from the client and
 * are not read: the thread has its own.
 * @throws TollgateError FORMAT_ERROR for content other than text
 */
export function newMessage({ messages }: RunAgentInput): string | undefined {
  const at = messages.length - 1;
  const last = messages[at];
  if (last?.role !== 'user') return undefined;
  const text = textOf(last, `messages.${at}.content`);
  if (text === '') throw fieldError(`messages.${at}.content`, 'must not be empty');
  return text;
}

/** @throws TollgateError FORMAT_ERROR */
function textOf({ content }: HistoryMessage, field: string): string {
  if (typeof content === 'string') return content.toWellFormed();
  if (!Array.isArray(content)) throw fieldError(field, 'must be a text or a list of parts');
  const texts = content.map((part, index) => {
    const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
    if (type === 'text' && typeof text === 'string') return text.toWellFormed();
    throw fieldError(`${field}.${index}`, 'must be a part of type text: agents read only text');
  });
  return texts.join('\n');
}

export function fieldError(field: string, problem: string): TollgateError {
  return new TollgateError('FORMAT_ERROR', { text: `"${field}": ${problem}`, fields: { field } });
}

/**
 * The results of tools that the client sends: the tool messages at the end of its messages. The messages before them
 * are not read.
 * @throws TollgateError FORMAT_ERROR for content other than text
 */
export function sentResults({ messages }: Pick<RunAgentInput, 'messages'>): readonly SentResult[] {
  const before = messages.findLastIndex(({ role }) => role !== 'tool');
  return messages.flatMap((message, at) => {
    const { id, toolCallId, error } = message;
    // Results of Tollgate's own tools.
    if (at <= before || OWN_ID.test(id)) return [];
    if (typeof toolCallId !== 'string' || toolCallId === '' || toolCallId.length > ID_LENGTH) {
      throw fieldError(`messages.${at}.toolCallId`, 'must be the id of a call');
    }
    const content = textOf(message, `messages.${at}.content`);
    const failure = typeof error === 'string' && error !== '' ? { error: error.toWellFormed() } : {};
    return { at, message: { id, role: 'tool', content, toolCallId, ...failure } };
  });
}

export interface SentResult {
  /** Index of the message. */
  readonly at: number;
  readonly message: ToolMessage & { readonly error?: string };
}

/** Fields of the input that have a value and no effect, so that a client does not miss it silently. */
export function ignoredFields(
  { tools = [], context, state, forwardedProps }: RunAgentInput,
  agent: Pick<AgentDescription, 'kind' | 'tools'> | undefined,
): readonly string[] {
  const hasNone = agent?.kind === 'a2a' || agent?.kind === 'built_in';
  const own = tools.flatMap((tool) => {
    const { name } = (tool ?? {}) as { readonly name?: unknown };
    return typeof name === 'string' && agent?.tools.includes(name) ? [`tools.${name}`] : [];
  });
  const ofTools = hasNone && tools.length > 0 ? ['tools'] : own;
  const others = Object.entries({ context, state, forwardedProps }).flatMap(([name, value]) =>
    typeof value === 'object' && value !== null && Object.keys(value).length > 0 ? [name] : [],
  );
  return [...ofTools, ...others];
}
