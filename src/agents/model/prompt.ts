import type { ChatCompletionMessageParam } from 'openai/resources/chat/completions';
import type { Fields } from '../../protocol/messages.ts';
import type { ModelStep } from '../../runs/step-log.ts';
import type { ToolOutcome } from '../../tools/outcome.ts';
import type { ToolArguments } from '../../tools/tool.ts';

/** Messages of a thread that a model is shown beside the one it answers, and how much of them. */
export const HISTORY_MESSAGES = 20;
const HISTORY_BYTES = 16_384;
/** Of one tool's result; the whole of it is in the event. */
const RESULT_LENGTH = 16_384;

/**
 * What a model is shown first: its instructions, what was said before in the thread, and the message.
 * @param history newest first, as `Threads.history` gives it
 */
export function initialMessages(
  task: { readonly instructions: string; readonly message: string; readonly runId: string },
  history: readonly Fields[],
): ChatCompletionMessageParam[] {
  return [
    { role: 'system', content: task.instructions },
    ...threadMessages(history, task.runId),
    { role: 'user', content: task.message.toWellFormed() },
  ];
}

/** The messages before that of the run, oldest first: whole ones, as many of the latest as there is room for. */
function threadMessages(history: readonly Fields[], runId: string): ChatCompletionMessageParam[] {
  // What was written after it belongs to runs that came later.
  const own = history.findIndex(({ run_id }) => run_id === runId);
  const messages: ChatCompletionMessageParam[] = [];
  let remainingBytes = HISTORY_BYTES;
  for (const { role, text } of history.slice(own + 1)) {
    if (typeof text !== 'string' || (role !== 'user' && role !== 'assistant')) continue;
    remainingBytes -= Buffer.byteLength(text);
    if (remainingBytes < 0 || messages.length === HISTORY_MESSAGES) break;
    // Half of a character, where a text was cut: servers that decode strictly refuse the whole request, now and ever after.
    messages.unshift({ role, content: text.toWellFormed() });
  }
  return messages;
}

/** The arguments of a call as an object; undefined when they are no JSON object. */
export function parseArguments(json: string): ToolArguments | undefined {
  // What models send for "no arguments".
  if (json.trim() === '') return {};
  try {
    const parsed: unknown = JSON.parse(json);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? (parsed as Fields) : undefined;
  } catch {
    return undefined;
  }
}

/** What a step adds to the conversation: what the model said, and what came of each of its calls. */
export function stepMessages(step: ModelStep, results: readonly string[]): ChatCompletionMessageParam[] {
  const calls = step.calls.map(({ id, name, arguments: json }) => ({
    id,
    type: 'function' as const,
    // Servers that render the call into a prompt parse it, and refuse the whole request when they cannot.
    function: { name, arguments: parseArguments(json) ? json || '{}' : '{}' },
  }));
  return [
    { role: 'assistant', content: step.text.toWellFormed() || null, tool_calls: calls },
    ...step.calls.map(({ id }, at) => ({ role: 'tool' as const, tool_call_id: id, content: results[at] ?? '' })),
  ];
}

/** The outcome of a tool as a model reads it. Refusals are told with their reason, so that it can go another way. */
export function toolResult(outcome: Pick<ToolOutcome, 'success' | 'result' | 'error'>): string {
  const content = outcome.success ? { result: outcome.result } : { error: outcome.error };
  const json = JSON.stringify(content);
  return json.length > RESULT_LENGTH ? `${json.slice(0, RESULT_LENGTH).toWellFormed()}… (cut off)` : json;
}
