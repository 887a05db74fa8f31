import { z } from 'zod';
import type { RunInputsPort } from '../../connections/handlers.ts';
import type { LocatedRun } from '../../jobs.ts';
import { TollgateError } from '../../protocol/errors.ts';
import type { InputAnswer } from '../../protocol/input.ts';
import { type ChatBody, formatError } from './chat-request.ts';

/** Most approvals of one request. A run has at most as many open as its agent has calls at once. */
const MAX_APPROVALS = 64;

const AnsweredPart = z.looseObject({
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

/** The answers in the message of a run that waits for approvals. */
export interface Approvals {
  readonly runId: string;
  /** The position of the message in the log: the response continues after it. */
  readonly epoch: string;
  readonly seq: number;
  readonly answers: readonly { readonly inputId: string; readonly answer: InputAnswer }[];
}

/**
 * Reads the approvals that the user has given or refused in the last message. Of that message, only their ids and the
 * position count; whether such a request is open is up to the run.
 * @returns undefined for a message without approvals
 * @throws TollgateError FORMAT_ERROR that names the field
 */
export function approvalsOf({ messages }: ChatBody): Approvals | undefined {
  const at = messages.length - 1;
  const last = messages[at];
  if (last?.role !== 'assistant') return undefined;
  const answered = last.parts.flatMap((part, index) => {
    if (part.state !== 'approval-responded') return [];
    const parsed = AnsweredPart.safeParse(part);
    if (!parsed.success) throw formatError(`messages.${at}.parts.${index}.approval`, 'must have "id" and "approved"');
    return [parsed.data.approval];
  });
  if (answered.length === 0) return undefined;
  if (answered.length > MAX_APPROVALS) throw formatError(`messages.${at}.parts`, 'has too many approvals');
  const position = Position.safeParse(last.metadata);
  if (!position.success) {
    throw formatError(`messages.${at}.metadata`, 'must be that of the message with the request, with "tollgate"');
  }
  const { run_id: runId, epoch, seq } = position.data.tollgate;
  const answers = answered.map(({ id: inputId, approved }) => {
    return { inputId, answer: { action: approved ? ('accept' as const) : ('decline' as const) } };
  });
  return { runId, epoch, seq, answers };
}

/**
 * Stores the approvals of a run of the user, which then continues.
 * @throws TollgateError RUN_NOT_FOUND, EVENTS_TRIMMED, and the errors of `RunInputsPort.answer`
 */
export async function answerApprovals(
  inputs: RunInputsPort,
  userId: string,
  { runId, epoch, answers }: Approvals,
  run: LocatedRun | undefined,
): Promise<LocatedRun> {
  const fields = { run_id: runId };
  if (!run) throw new TollgateError('RUN_NOT_FOUND', { fields });
  // The position of the message belongs to a history that the log no longer has.
  if (run.epoch !== epoch) throw new TollgateError('EVENTS_TRIMMED', { retryable: true, fields });
  for (const { inputId, answer } of answers) await inputs.answer(userId, { runId, inputId, answer });
  return run;
}
