import { z } from 'zod';
import { TollgateError } from '../src/protocol/errors.ts';

/** Longest of each kind of parameter; the body as a whole is bounded by the server. */
export const MAX_TOKEN_LENGTH = 8_192;
export const MAX_SECRET_LENGTH = 1_024;
export const MAX_NAME_LENGTH = 254;

/** A parameter that need not be there. One without a value counts as omitted: RFC 6749 section 3.1. */
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
 * One text or a list of them, at most `maxLength` long. The length is checked first: zod makes an issue of each element
 * that is no text, which costs 200 µs per kB of them.
 */
export function textOrList(maxLength: number) {
  return z
    .unknown()
    .refine((value) => !Array.isArray(value) || value.length <= maxLength)
    .pipe(z.union([z.string(), z.array(z.string())]).optional());
}

/**
 * The parameters of a form or JSON body. A repeated form parameter arrives as an array, which no schema here allows
 * (RFC 6749 section 3.2). The error names the parameter, never its value.
 * @throws TollgateError FORMAT_ERROR
 */
export function parameters<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body ?? {});
  if (parsed.success) return parsed.data;
  const name = parsed.error.issues[0]?.path[0];
  const text = name === undefined ? 'The body must be an object.' : `${String(name)} is missing or has the wrong form.`;
  throw new TollgateError('FORMAT_ERROR', { text });
}
