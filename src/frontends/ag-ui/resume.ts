import type { RunInputsPort } from '../../connections/handlers.ts';
import { isObject } from '../../lib/json.ts';
import { type ErrorCode, TollgateError } from '../../protocol/errors.ts';
import { type InputAnswer, inputIdOf, type OpenInputRequest } from '../../protocol/input.ts';
import { fieldError, type ResumeEntry, type SentResult } from './input.ts';

/** Of the error of a tool; the agent reads it. */
const ERROR_CHARACTERS = 2_000;

/**
 * Stores the answers of a client to the interrupts of a run.
 * @param open the input requests of the run without an answer
 * @throws TollgateError FORMAT_ERROR that names the field, and the errors of `RunInputsPort.answer`
 */
export async function answerInterrupts(
  inputs: RunInputsPort,
  run: { readonly userId: string; readonly runId: string; readonly open: readonly OpenInputRequest[] },
  entries: readonly ResumeEntry[],
): Promise<void> {
  const { userId, runId, open } = run;
  // All answers are read before the first one is stored.
  const answers = entries.map((entry, at) => {
    const kind = open.find(({ input_id }) => input_id === entry.interruptId)?.kind;
    return { inputId: entry.interruptId, answer: answerOf(entry, kind, `resume.${at}`) };
  });
  for (const [at, { inputId, answer }] of answers.entries()) {
    await inputs.answer(userId, { runId, inputId, answer }).catch((error: unknown) => {
      if (isCode(error, 'INPUT_NOT_FOUND')) throw unknownInterrupt(at);
      if (isCode(error, 'FORMAT_ERROR')) throw fieldError(`resume.${at}.payload`, (error as Error).message);
      // A client abandons what has ended meanwhile in order to continue: nothing is left to be answered.
      const isOver = isCode(error, 'INPUT_EXPIRED') || isCode(error, 'INPUT_ALREADY_ANSWERED');
      if (!isOver || answer.action !== 'cancel') throw error;
    });
  }
}

/**
 * Stores the results of calls of the client's tools.
 * @returns the ids of the calls that got another result before, or expired: the result of the client does not count
 * @throws TollgateError FORMAT_ERROR that names the field, and the errors of `RunInputsPort.answer`
 */
export async function answerCalls(
  inputs: RunInputsPort,
  run: { readonly userId: string; readonly runId: string },
  results: readonly SentResult[],
): Promise<readonly string[]> {
  const refused: string[] = [];
  for (const { at, message } of results) {
    const { toolCallId, content, error } = message;
    const answered = error === undefined ? { result: content } : { error: error.slice(0, ERROR_CHARACTERS) };
    const answer = { action: 'accept', content: answered } as const;
    const response = { runId: run.runId, inputId: inputIdOf(toolCallId), answer, kind: 'tool' } as const;
    await inputs.answer(run.userId, response).catch((thrown: unknown) => {
      if (isCode(thrown, 'FORMAT_ERROR')) throw fieldError(`messages.${at}.content`, (thrown as Error).message);
      if (isCode(thrown, 'INPUT_NOT_FOUND')) throw unknownCall(at);
      // Another page of the user was faster. The client follows the run.
      const isOver = isCode(thrown, 'INPUT_EXPIRED') || isCode(thrown, 'INPUT_ALREADY_ANSWERED');
      if (!isOver) throw thrown;
      refused.push(toolCallId);
    });
  }
  return refused;
}

export function unknownCall(at: number): TollgateError {
  return fieldError(`messages.${at}.toolCallId`, 'no run of this thread waits for the result of this call');
}

export function unknownInterrupt(at: number): TollgateError {
  return fieldError(`resume.${at}.interruptId`, 'no run of this thread that can be continued has this interrupt');
}

/** @param kind of the request; undefined for one that has an answer, with which this one is only compared */
function answerOf(
  { status, payload }: ResumeEntry,
  kind: OpenInputRequest['kind'] | undefined,
  field: string,
): InputAnswer {
  if (status === 'cancelled') return { action: 'cancel' };
  const content = isObject(payload) ? payload : {};
  const { approved } = content;
  if (kind === 'approval' || (kind === undefined && typeof approved === 'boolean')) {
    // An approval must be explicit: clients also resolve an interrupt with a refusal.
    if (typeof approved !== 'boolean') throw fieldError(`${field}.payload`, 'must contain "approved": true or false');
    return { action: approved ? 'accept' : 'decline' };
  }
  return { action: 'accept', content };
}

function isCode(error: unknown, code: ErrorCode): boolean {
  return error instanceof TollgateError && error.code === code;
}
