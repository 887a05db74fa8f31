import { z } from 'zod';
import type { RunInputsPort } from '../../connections/handlers.ts';
import type { LocatedRun } from '../../jobs.ts';
import { TollgateError } from '../../protocol/errors.ts';
import { type InputAnswer, inputIdOf, runIdOfCall } from '../../protocol/input.ts';
import { type ChatBody, formatError } from './chat-request.ts';

/** Most answers of one request. A run has at most as many open as its agent has calls at once. */
const MAX_ANSWERS = 64;
/** Of the error of a tool; the agent reads it. */
const ERROR_CHARACTERS = 2_000;
/** Longest id of a call. */
const ID_LENGTH = 255;

const ApprovedPart = z.looseObject({
  state: z.literal('approval-responded'),
  approval: z.looseObject({ id: z.string().min(1).max(128), approved: z.boolean() }),
});
const Position = z.looseObject({
  tollgate: z.looseObject({
    run_id: z.string().min(1).max(64),
    epoch: z.string().max(64),
    seq: z.number().int().min(1),
  }),
});

type Part = ChatBody['messages'][number]['parts'][number];

interface Answer {
  readonly inputId: string;
  readonly answer: InputAnswer;
}

/** The result of a call of the page's tools. */
interface Result extends Answer {
  /** The part with the result, as errors name it. */
  readonly field: string;
}

/** The answers in the message of a run that waits for them. */
export interface ChatAnswers {
  readonly runId: string;
  /** The position of the message in the log: the response continues after it. */
  readonly epoch: string;
  readonly seq: number;
  readonly approvals: readonly Answer[];
  readonly results: readonly Result[];
}

/**
 * Reads the approvals that the user has given or refused in the last message, and the results of the page's tools. Of
 * that message, only these and the position count; whether such a request is open is up to the run. Parts of calls that
 * the provider has executed are history.
 * @returns undefined for a message without answers
 * @throws TollgateError FORMAT_ERROR that names the field
 */
export function answersOf({ messages }: ChatBody): ChatAnswers | undefined {
  const at = messages.length - 1;
  const last = messages[at];
  if (last?.role !== 'assistant') return undefined;
  const parts = last.parts.map((part, index) => ({ part, field: `messages.${at}.parts.${index}` }));
  const approved = parts.filter(({ part }) => part.state === 'approval-responded');
  const executed = parts.filter(({ part }) => isResult(part));
  if (approved.length + executed.length === 0) return undefined;
  if (approved.length + executed.length > MAX_ANSWERS)
    throw formatError(`messages.${at}.parts`, 'has too many answers');
  const position = Position.safeParse(last.metadata);
  if (!position.success) {
    throw formatError(`messages.${at}.metadata`, 'must be that of the message with the request, with "tollgate"');
  }
  const { run_id: runId, epoch, seq } = position.data.tollgate;
  return {
    ...{ runId, epoch, seq },
    approvals: approved.map(({ part, field }) => approvalOf(part, field)),
    results: executed.map(({ part, field }) => resultOf(part, field, runId)),
  };
}

function isResult({ type, state, providerExecuted, preliminary }: Part): boolean {
  const isTool = type === 'dynamic-tool' || type.startsWith('tool-');
  const isComplete = state === 'output-error' || (state === 'output-available' && preliminary !== true);
  return isTool && isComplete && providerExecuted !== true;
}

function approvalOf(part: Part, field: string): Answer {
  const { data } = ApprovedPart.safeParse(part);
  if (!data) throw formatError(`${field}.approval`, 'must have "id" and "approved"');
  const { id: inputId, approved } = data.approval;
  return { inputId, answer: { action: approved ? 'accept' : 'decline' } };
}

function resultOf({ toolCallId, state, output, errorText }: Part, field: string, runId: string): Result {
  const isOfRun = typeof toolCallId === 'string' && toolCallId.length <= ID_LENGTH && runIdOfCall(toolCallId) === runId;
  if (!isOfRun) throw unknownCall(field);
  const text = typeof errorText === 'string' && errorText !== '' ? errorText : 'The tool failed.';
  const content =
    state === 'output-error' ? { error: text.slice(0, ERROR_CHARACTERS).toWellFormed() } : { result: output ?? null };
  return { field, inputId: inputIdOf(toolCallId), answer: { action: 'accept', content } };
}

function unknownCall(field: string): TollgateError {
  return formatError(`${field}.toolCallId`, 'the run of the message does not wait for the result of this call');
}

export interface AnsweredRuns {
  readonly inputs: RunInputsPort;
  readonly locate: (userId: string, run: { readonly runId: string }) => Promise<LocatedRun | undefined>;
}

/**
 * Stores the answers for a run of the user, which then continues. Of several results of a call, the first one counts:
 * the response has it, also when it is that of another page. A run that has ended takes no results: the response has
 * its end.
 * @throws TollgateError RUN_NOT_FOUND, EVENTS_TRIMMED, FORMAT_ERROR that names the field of a result, and for approvals
 *   the errors of `RunInputsPort.answer`
 */
export async function answerRun(
  { inputs, locate }: AnsweredRuns,
  userId: string,
  { runId, epoch, approvals, results }: ChatAnswers,
): Promise<LocatedRun> {
  const fields = { run_id: runId };
  const run = await locate(userId, { runId });
  if (!run) throw new TollgateError('RUN_NOT_FOUND', { fields });
  // The position of the message belongs to a history that the log no longer has.
  if (run.epoch !== epoch) throw new TollgateError('EVENTS_TRIMMED', { retryable: true, fields });
  const hasEnded = async () => (await locate(userId, { runId }))?.endedAtSeq !== undefined;
  for (const { field, inputId, answer } of results) {
    if (run.endedAtSeq !== undefined) break;
    await inputs.answer(userId, { runId, inputId, answer, kind: 'tool' }).catch(async (thrown: unknown) => {
      if (!(thrown instanceof TollgateError)) throw thrown;
      const { code, message } = thrown;
      if (code === 'FORMAT_ERROR') throw formatError(`${field}.output`, message.replace(/\.$/, ''));
      if (code === 'INPUT_ALREADY_ANSWERED' || code === 'INPUT_EXPIRED') return;
      if (code !== 'INPUT_NOT_FOUND') throw thrown;
      if (!(await hasEnded())) throw unknownCall(field);
    });
  }
  for (const { inputId, answer } of approvals) await inputs.answer(userId, { runId, inputId, answer });
  return run;
}
