import { TollgateError } from '@tollgate/client';

/** The client throws nothing else; anything else is an error of the application, such as one of its `getToken`. */
export function asTollgateError(cause: unknown): TollgateError {
  if (cause instanceof TollgateError) return cause;
  return new TollgateError('INTERNAL_ERROR', { message: String(cause), retryable: false, cause });
}
