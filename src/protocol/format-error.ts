import type { z } from 'zod';
import { TollgateError } from './errors.ts';

/**
 * The refusal of input that does not fit its schema: one line that names the first field which is wrong, and never the
 * value, which may be a secret in the wrong place.
 */
export function formatError({ issues: [issue] }: z.ZodError): TollgateError {
  const text = issue?.message ?? 'The input has the wrong form.';
  const field = issue?.path.join('.') ?? '';
  // What is wrong with the whole of it has no name.
  if (field === '') return new TollgateError('FORMAT_ERROR', { text });
  return new TollgateError('FORMAT_ERROR', { text: `"${field}": ${text}`, fields: { field } });
}
