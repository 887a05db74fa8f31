import type { z } from 'zod';
import { type ErrorCode, type ErrorDetails, TollgateError } from '../../protocol/errors.ts';

/** Which requests may be sent again after it: all, if the service has certainly not acted; else those that change nothing. */
export type Repeatable = 'always' | 'if_idempotent' | 'never';

type FaultCode = Extract<ErrorCode, 'AUTH_SERVICE_UNAVAILABLE' | 'AUTH_SERVICE_TIMEOUT' | 'INVALID_RESPONSE_FORMAT'>;

/** A failure of the auth service itself, which says nothing about any token: what the breaker counts. */
export class Fault extends TollgateError {
  readonly repeatable: Repeatable;

  constructor(code: FaultCode, repeatable: Repeatable, details: ErrorDetails = {}) {
    super(code, details);
    this.repeatable = repeatable;
  }
}

/** An answer that cannot be used. The reason is for the log. */
export function unusable(reason: string, cause?: unknown): Fault {
  return new Fault('INVALID_RESPONSE_FORMAT', 'never', { cause: new Error(reason, { cause }) });
}

/** A body of the form expected. @throws Fault that names what is wrong with it, never its values */
export function usable<T>(schema: z.ZodType<T>, json: unknown): T {
  if (json === undefined) throw unusable('no JSON');
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw unusable(`JSON of another form: ${parsed.error.issues.map(({ path }) => path.join('.')).join(', ')}`);
}
