import { TollgateError } from '../protocol/errors.ts';
import type { InputExchange, InputRequests } from '../upstreams/input-requests.ts';

/** A caller who can be asked something by the tool that it calls. */
export interface ToolInputExchange extends InputExchange {
  /** Questions of this call that have been answered, this answer included: 0 for one that begins. */
  readonly answered: number;
}

export interface ToolInputRequests extends InputRequests {
  /** Questions of the call that an answer to these answers, those before them included. */
  readonly asked: number;
}

/** The tool asks its caller first: an outcome that the call goes on from, with the answers. */
export class InputRequired extends TollgateError {
  readonly inputRequests: ToolInputRequests;

  constructor(inputRequests: ToolInputRequests) {
    super('INPUT_REQUIRED');
    this.name = 'InputRequired';
    this.inputRequests = inputRequests;
  }
}
