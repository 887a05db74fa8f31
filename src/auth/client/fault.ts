import type { z } from 'zod';
import { type ErrorCode, type ErrorDetails, TollgateError } from '../../protocol/errors.ts';

/**
 * Requests that may be resent after a fault: `always` if the service has certainly not acted, else only idempotent
 * ones.
 */
export type Repeatable = 'always' | 'if_idempotent' | 'never';

type FaultCode = Extract<ErrorCode, 'AUTH_SERVICE_UNAVAILABLE' | 'AUTH_SERVICE_TIMEOUT' | 'INVALID_RESPONSE_FORMAT'>;

/** Failure of the auth service itself, independent of any token. The circuit breaker counts only faults. */
export class Fault extends TollgateError {
  readonly repeatable: Repeatable;

  constructor(code: FaultCode, repeatable: Repeatable, details: ErrorDetails = {}) {
    super(code, details);
    this.repeatable = repeatable;
  }
}

/** Creates the fault for an unusable response. The reason is only logged. */
export function unusable(reason: string, cause?: unknown): Fault {
  return new Fault('INVALID_RESPONSE_FORMAT', 'never', { cause: new Error(reason, { cause }) });
}

/** Validates a response body. @throws Fault that names the invalid fields, never their values */
export function usable<T>(schema: z.ZodType<T>, json: unknown): T {
  if (json === undefined) throw unusable('no JSON');
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw unusable(`JSON of another form: ${parsed.error.issues.map(({ path }) => path.join('.')).join(', ')}`);
}
