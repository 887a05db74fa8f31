import type { z } from 'zod';
import { TollgateError } from './errors.ts';

/**
 * Converts a failed validation to an error with one line of text. The text names the first invalid field, but never its
 * value, which may be a misplaced secret.
 */
export function formatError({ issues: [issue] }: z.ZodError): TollgateError {
  const text = issue?.message ?? 'The input has the wrong form. Check it against the documentation.';
  const field = issue?.path.join('.') ?? '';
  // An issue with the input as a whole has no path.
  if (field === '') return new TollgateError('FORMAT_ERROR', { text });
  return new TollgateError('FORMAT_ERROR', { text: `"${field}": ${text}`, fields: { field } });
}
