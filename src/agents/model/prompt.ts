import type { ChatCompletionMessageParam } from 'openai/resources/chat/completions';
import type { Fields } from '../../protocol/messages.ts';
import type { ModelStep } from '../../runs/step-log.ts';
import type { ToolOutcome } from '../../tools/outcome.ts';
import type { ToolArguments } from '../../tools/tool.ts';

/** Maximum number of earlier messages of the thread in a prompt. */
export const HISTORY_MESSAGES = 20;
/** Maximum size of the earlier messages in total. */
const HISTORY_BYTES = 16_384;
/** Maximum characters of a tool result in a prompt; the event contains the whole result. */
const RESULT_LENGTH = 16_384;

/**
 * Builds the first prompt of a run: instructions, earlier messages of the thread, and the message.
 * @param history newest first, as returned by `Threads.history`
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

/** Returns the latest whole messages before the run's own that fit into the bounds, oldest first. */
function threadMessages(history: readonly Fields[], runId: string): ChatCompletionMessageParam[] {
  // Messages after the run's own message belong to later runs.
  const own = history.findIndex(({ run_id }) => run_id === runId);
  const messages: ChatCompletionMessageParam[] = [];
  let remainingBytes = HISTORY_BYTES;
  for (const { role, text } of history.slice(own + 1)) {
    if (typeof text !== 'string' || (role !== 'user' && role !== 'assistant')) continue;
    remainingBytes -= Buffer.byteLength(text);
    if (remainingBytes < 0 || messages.length === HISTORY_MESSAGES) break;
    // A cut text can end with half of a surrogate pair. Strict servers would reject this and every later request.
    messages.unshift({ role, content: text.toWellFormed() });
  }
  return messages;
}

/** Parses the arguments of a call; undefined when they are not a JSON object. */
export function parseArguments(json: string): ToolArguments | undefined {
  // Models send an empty string for "no arguments".
  if (json.trim() === '') return {};
  try {
    const parsed: unknown = JSON.parse(json);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? (parsed as Fields) : undefined;
  } catch {
    return undefined;
  }
}

/** Returns the messages that a step adds to the prompt: the output of the model, and the result of each call. */
export function stepMessages(step: ModelStep, results: readonly string[]): ChatCompletionMessageParam[] {
  const calls = step.calls.map(({ id, name, arguments: json }) => ({
    id,
    type: 'function' as const,
    // Some servers parse the arguments to render the prompt, and reject the whole request if they are invalid JSON.
    function: { name, arguments: parseArguments(json) ? json || '{}' : '{}' },
  }));
  return [
    { role: 'assistant', content: step.text.toWellFormed() || null, tool_calls: calls },
    ...step.calls.map(({ id }, at) => ({ role: 'tool' as const, tool_call_id: id, content: results[at] ?? '' })),
  ];
}

/** Formats an outcome for the model. Includes the reason of a refusal, so that the model can choose another way. */
export function toolResult(outcome: Pick<ToolOutcome, 'success' | 'result' | 'error'>): string {
  const content = outcome.success ? { result: outcome.result } : { error: outcome.error };
  const json = JSON.stringify(content);
  return json.length > RESULT_LENGTH ? `${json.slice(0, RESULT_LENGTH).toWellFormed()}… (cut off)` : json;
}
