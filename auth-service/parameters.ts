import { z } from 'zod';
import { TollgateError } from '../src/protocol/errors.ts';
import { withoutUnsetFields } from '../src/protocol/parse-fields.ts';

/** Maximum lengths per kind of parameter. The HTTP server bounds the body as a whole. */
export const MAX_TOKEN_LENGTH = 8_192;
export const MAX_SECRET_LENGTH = 1_024;
export const MAX_NAME_LENGTH = 254;

/** Optional parameter. An empty value counts as omitted: RFC 6749 section 3.1. */
export function optionalText(maxLength: number) {
  return z
    .string()
    .max(maxLength)
    .optional()
    .transform((value) => (value === '' ? undefined : value));
}

export function text(maxLength: number) {
  return z.string().min(1).max(maxLength);
}

/**
 * A text or a list of at most `maxLength` texts. The length is checked first, because zod creates an issue per invalid
 * element, which costs 200 µs per kB.
 */
export function textOrList(maxLength: number) {
  return z
    .unknown()
    .refine((value) => !Array.isArray(value) || value.length <= maxLength)
    .pipe(z.union([z.string(), z.array(z.string())]).optional());
}

/**
 * Validates the parameters of a form or JSON body; a null in JSON counts as omitted. A repeated form parameter arrives as an array, which only
 * `textOrList` allows (RFC 6749 section 3.2). The error names the parameter, never its value.
 * @throws TollgateError FORMAT_ERROR
 */
export function parameters<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(withoutUnsetFields(schema, body ?? {}));
  if (parsed.success) return parsed.data;
  const name = parsed.error.issues[0]?.path[0];
  const text = name === undefined ? 'The body must be an object.' : `${String(name)} is missing or has the wrong form.`;
  throw new TollgateError('FORMAT_ERROR', { text });
}
