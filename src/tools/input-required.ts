import { TollgateError } from '../protocol/errors.ts';
import type { InputExchange, InputRequests } from '../upstreams/input-requests.ts';

/** Present on a tool call whose caller can receive input requests. */
export interface ToolInputExchange extends InputExchange {
  /** Completed input rounds of this call, including the answer in this request; 0 for a new call. */
  readonly answered: number;
}

export interface ToolInputRequests extends InputRequests {
  /** Input rounds of the call, including this one. */
  readonly asked: number;
}

/** Thrown when a tool needs input from its caller. The call continues when the answers arrive. */
export class InputRequired extends TollgateError {
  readonly inputRequests: ToolInputRequests;

  constructor(inputRequests: ToolInputRequests) {
    super('INPUT_REQUIRED');
    this.name = 'InputRequired';
    this.inputRequests = inputRequests;
  }
}
