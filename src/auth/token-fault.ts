import { TollgateError } from '../protocol/errors.ts';

/** Reason for the refusal of a token, for the log: the name of the claim or header parameter, never its value. */
export class TokenFault extends Error {
  /** E.g. `aud`, or `header typ`. */
  readonly claim: string;

  constructor(claim: string, reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.name = 'TokenFault';
    this.claim = claim;
  }
}

/** VALIDATION_FAILED because of one claim. The reason is only logged. */
export function refusedClaim(claim: string, reason: string, cause?: unknown): TollgateError {
  return new TollgateError('VALIDATION_FAILED', { cause: new TokenFault(claim, reason, { cause }) });
}
