import type { InputAnswer, InputRequest, RunEvent, TollgateError } from '@tollgate/client';

/** What the run asks its user now. */
export interface RunInput extends InputRequest {
  /** Whether an answer of this page is on its way. */
  readonly isSending: boolean;
  /** Why the last answer was refused, such as FORMAT_ERROR for content that does not fit. */
  readonly error: TollgateError | undefined;
}

/** Answers an input request of the run. A refusal shows up as the `error` of the request. */
export type Respond = (input: Pick<InputRequest, 'input_id'>, answer: InputAnswer) => void;

/** Codes after which an input request is no longer open. */
const CLOSED: ReadonlySet<string> = new Set([
  'INPUT_ALREADY_ANSWERED',
  'INPUT_EXPIRED',
  'INPUT_NOT_FOUND',
  'RUN_NOT_FOUND',
]);

export function openInput(request: InputRequest): RunInput {
  return { ...request, isSending: false, error: undefined };
}

/** The open input requests after an event. The same array if the event changes none. */
export function inputsAfter(inputs: readonly RunInput[], event: RunEvent): readonly RunInput[] {
  switch (event.type) {
    case 'input_requested':
      return [...without(inputs, event.input_id), openInput(event)];
    case 'input_received':
    case 'input_expired':
      return without(inputs, event.input_id);
    default:
      return inputs;
  }
}

/** The open input requests while an answer is on its way. */
export function inputsWhileSending(inputs: readonly RunInput[], id: string): readonly RunInput[] {
  return inputs.map((input) => (input.input_id === id ? { ...input, isSending: true, error: undefined } : input));
}

/** The open input requests after an answer. */
export function inputsAfterAnswer(inputs: readonly RunInput[], id: string, error?: TollgateError): readonly RunInput[] {
  if (error === undefined || CLOSED.has(error.code)) return without(inputs, id);
  return inputs.map((input) => (input.input_id === id ? { ...input, isSending: false, error } : input));
}

function without(inputs: readonly RunInput[], id: string): readonly RunInput[] {
  return inputs.filter(({ input_id }) => input_id !== id);
}
