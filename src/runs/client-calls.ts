import { publicError, TollgateError } from '../protocol/errors.ts';
import { type InputOutcome, type InputRequest, inputIdOf } from '../protocol/input.ts';
import type { ToolOutcome } from '../tools/outcome.ts';
import type { RunCallLog } from '../tools/run-journal.ts';
import type { ToolArguments } from '../tools/tool.ts';

interface ClientCall {
  readonly tool: string;
  readonly callId: string;
  readonly args: ToolArguments;
}

/**
 * Calls a tool that the front end of the user executes: the call is an input request, and its answer the outcome. It
 * costs nothing and needs no permission.
 * @throws RunSuspended while there is no answer
 */
export async function callClientTool(log: RunCallLog, call: ClientCall, expiresMs: number): Promise<ToolOutcome> {
  const { tool, callId, args } = call;
  const written = { ...call, client: true } as const;
  const ask = async (): Promise<InputOutcome> => {
    // Concurrent calls are all announced before the first request: clients see at once what there is to do.
    await Promise.resolve();
    const named = { tool_name: tool, tool_call_id: callId, arguments: args };
    const request: InputRequest = { kind: 'tool', message: `The agent calls ${tool}.`, ...named };
    return log.requestInput(inputIdOf(callId), request, expiresMs);
  };
  const replayed = log.journaled(callId);
  // The call is announced before its request, as an approval is: see RunJournal.ask.
  const [announced, answer] = await Promise.allSettled([
    log.toolExecuting(written),
    replayed ? Promise.resolve(replayed) : ask(),
  ]);
  if (announced.status === 'rejected') throw announced.reason;
  if (answer.status === 'rejected') throw answer.reason;
  const outcome = 'action' in answer.value ? outcomeOf(answer.value, tool) : answer.value;
  await log.buffered(log.toolCompleted(written, outcome));
  return outcome;
}

function outcomeOf({ action, content }: InputOutcome, tool: string): ToolOutcome {
  const ended = { duration_ms: 0, usage_record_id: null };
  const fields = { tool_name: tool };
  if (action === 'expired') return { ...ended, ...failed(new TollgateError('INPUT_EXPIRED', { fields })) };
  if (action === 'accept' && content?.error === undefined) {
    return { ...ended, success: true, result: content?.result ?? null };
  }
  const text = action === 'accept' ? String(content?.error) : 'The user did not let the front end execute the tool.';
  return { ...ended, ...failed(new TollgateError('TOOL_FAILED', { text, fields })) };
}

function failed(error: TollgateError) {
  return { success: false, error: publicError(error) };
}
