import type { Fields } from '../../protocol/messages.ts';
import type { ModelStep } from '../../runs/step-log.ts';
import { parseArguments } from './call-pieces.ts';
import type { CallMessage, ChatMessage } from './messages.ts';
import type { ReadableResult } from './tool-results.ts';

export interface HistoryLimits {
  /** Maximum number of earlier messages of the thread. */
  readonly history_messages: number;
  /** Maximum size of the earlier messages in total. */
  readonly history_bytes: number;
}

/**
 * Builds the first prompt of a run: instructions, earlier messages of the thread, and the message. Many chat templates
 * require that user and assistant alternate, beginning with the user. A thread has no such order: runs fail, or run at
 * the same time. Neighbours of one role are therefore joined, and an answer without its question is left out.
 * @param history newest first, as returned by `Threads.history`
 */
export function initialMessages(
  task: { readonly instructions: string; readonly message: string; readonly runId: string },
  history: readonly Fields[],
  limits: HistoryLimits,
): ChatMessage[] {
  const earlier = threadMessages(history, task.runId, limits);
  const firstQuestion = earlier.findIndex(({ role }) => role === 'user');
  const messages = firstQuestion < 0 ? [] : earlier.slice(firstQuestion);
  const own = { role: 'user' as const, content: task.message.toWellFormed() };
  return [{ role: 'system', content: task.instructions }, ...joined([...messages, own])];
}

export type ThreadMessage =
  | { readonly role: 'user'; readonly content: string }
  | { readonly role: 'assistant'; readonly content: string };

/** Returns the latest whole messages before the run's own that fit into the bounds, oldest first. */
export function threadMessages(history: readonly Fields[], runId: string, limits: HistoryLimits): ThreadMessage[] {
  // Messages after the run's own message belong to later runs.
  const own = history.findIndex(({ run_id }) => run_id === runId);
  const messages: ThreadMessage[] = [];
  let remainingBytes = limits.history_bytes;
  for (const { role, text } of history.slice(own + 1)) {
    if (typeof text !== 'string' || (role !== 'user' && role !== 'assistant')) continue;
    remainingBytes -= Buffer.byteLength(text);
    if (remainingBytes < 0 || messages.length === limits.history_messages) break;
    // A cut text can end with half of a surrogate pair. Strict servers would reject this and every later request.
    messages.unshift({ role, content: text.toWellFormed() });
  }
  return messages;
}

function joined(messages: readonly ThreadMessage[]): ThreadMessage[] {
  const result: ThreadMessage[] = [];
  for (const { role, content } of messages) {
    const last = result.at(-1);
    if (last?.role === role) result.splice(-1, 1, { role, content: `${last.content}\n\n${content}` });
    else result.push({ role, content });
  }
  return result;
}

/**
 * Returns the messages that a step adds to the prompt: the output of the model, with the fields that it needs back, and
 * the result of each call.
 */
export function stepMessages(step: ModelStep, results: readonly ReadableResult[]): ChatMessage[] {
  const images = results.flatMap((result) => result.images);
  return [
    {
      ...step.back,
      role: 'assistant',
      content: step.text.toWellFormed() || null,
      tool_calls: step.calls.map(callMessage),
    },
    ...step.calls.map(({ id }, at) => ({
      role: 'tool' as const,
      tool_call_id: id,
      content: results[at]?.text ?? '',
    })),
    ...(images.length > 0 ? [imagesMessage(images)] : []),
  ];
}

function callMessage({ id, name, arguments: json, extra = {} }: ModelStep['calls'][number]): CallMessage {
  const { function: beside, ...around } = extra;
  // Some servers parse the arguments to render the prompt, and reject the whole request if they are invalid JSON.
  const sent = parseArguments(json) ? json || '{}' : '{}';
  return { ...around, id, type: 'function', function: { ...(beside as Fields), name, arguments: sent } };
}

/** Results are texts, so images follow them as a message of the user. */
function imagesMessage(images: readonly string[]): ChatMessage {
  const blocks = images.map((url) => ({ type: 'image_url' as const, image_url: { url } }));
  return { role: 'user', content: [{ type: 'text', text: 'The images of the tool results.' }, ...blocks] };
}
