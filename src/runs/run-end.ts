import { TollgateError } from '../protocol/errors.ts';
import type { Billing } from '../tools/outcome.ts';

/** Another worker owns the run, or the run has ended. The receiver of this error stops and writes nothing more. */
export class RunOwnershipLost extends Error {
  constructor(outcome: 'fenced' | 'finished' | 'behind') {
    super(`the run was ${outcome}`);
    this.name = 'RunOwnershipLost';
  }
}

/** The run waits for input of its user. An agent that receives this error stops; the run continues with the answer. */
export class RunSuspended extends Error {
  constructor() {
    super('the run waits for input');
    this.name = 'RunSuspended';
  }
}

export interface RunAnswer {
  readonly final_response: string;
  readonly summary: string;
  /** Why a model said no more; absent for a normal end. */
  readonly finish_reason?: 'length' | 'content_filter' | 'refusal';
  /** Usage record of the whole turn, written with the terminal event. */
  readonly billing?: Billing;
}

/** A failure of an agent with the usage record of the turn, written with the terminal event. */
export class BilledFailure extends TollgateError {
  readonly billing: Billing;

  constructor({ code, message: text, cause, retryable, retryAfterMs, fields }: TollgateError, billing: Billing) {
    super(code, { text, cause, retryable, fields, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
    this.billing = billing;
  }
}
