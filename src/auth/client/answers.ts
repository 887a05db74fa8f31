import { z } from 'zod';
import { TollgateError } from '../../protocol/errors.ts';
import { isRefusalCode, REFUSALS, type Refusal } from '../../protocol/token-lifecycle.ts';
import { MAX_TOKEN_BYTES } from '../credentials.ts';
import { usable } from './fault.ts';
import type { HttpAnswer } from './http.ts';

export interface IssuedToken {
  readonly accessToken: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly refreshToken?: string;
}

/** The claims of an active token, as the service names them; none of them has been checked. */
export type Introspected = Readonly<Record<string, unknown>>;

const token = z.string().min(1).max(MAX_TOKEN_BYTES);
const TEN_YEARS_SECONDS = 315_360_000;

/** RFC 6749 section 5.1. `expires_in` is only recommended there; without it nobody could tell when to come back. */
const TokenResponse = z.object({
  access_token: token,
  // Another type would need more than the token to be presented: a DPoP proof, a certificate.
  token_type: z.string().regex(/^bearer$/i),
  expires_in: z.number().int().positive().max(TEN_YEARS_SECONDS),
  refresh_token: token.optional(),
  /** RFC 8693 section 2.2.1. */
  issued_token_type: z
    .enum(['urn:ietf:params:oauth:token-type:access_token', 'urn:ietf:params:oauth:token-type:jwt'])
    .optional(),
});

/** RFC 7662 section 2.2. */
const IntrospectionResponse = z.looseObject({ active: z.boolean() });

/** RFC 6749 section 5.2; `code` is the reference service's, and tells what OAuth has one word for. */
const ErrorResponse = z.object({ error: z.string().regex(/^[\x20-\x7e]{1,64}$/), code: z.string().optional() });

/** What a server that knows OAuth alone says of a token: RFC 6749 section 5.2, RFC 8693 section 2.2.2. */
const TOKEN_REFUSED = ['invalid_grant', 'invalid_request'];
const NOT_NOW = ['temporarily_unavailable', 'server_error'];

/** Whether a token was refused, as opposed to an outage that says nothing about it. */
export function isRefusal(error: unknown): error is TollgateError & { readonly code: Refusal } {
  return error instanceof TollgateError && isRefusalCode(error.code);
}

/** The service does not take us for the client that we say to be: no token is to blame, and nobody but an operator helps. */
export class ClientRefused extends Error {}

/** @param sentAt when the request left, ms: a token that lives from then on lives no longer than it should. @throws Fault */
export function readToken(json: unknown, sentAt: number): IssuedToken {
  const { access_token, expires_in, refresh_token } = usable(TokenResponse, json);
  const issued = { accessToken: access_token, expiresAt: sentAt + expires_in * 1000 };
  return refresh_token === undefined ? issued : { ...issued, refreshToken: refresh_token };
}

/** The claims, undefined for a token that is not active. @throws Fault */
export function readIntrospection(json: unknown): Introspected | undefined {
  const { active, ...claims } = usable(IntrospectionResponse, json);
  return active ? claims : undefined;
}

/**
 * What a 4xx says. It is about one request, and so never a reason to stop asking for everybody: whoever can make the
 * service answer so with a token must not be able to close the door.
 */
export function readRefusal({ status, json }: HttpAnswer): TollgateError {
  const body = ErrorResponse.safeParse(json);
  const error = body.data?.error ?? 'no OAuth error';
  const answered = `status ${status}, ${error}`;
  const clientRefused = () => new TollgateError('AUTH_SERVICE_UNAVAILABLE', { cause: new ClientRefused(answered) });
  // RFC 6749 section 5.2: 401 is for clients that could not prove themselves.
  if (status === 401 || status === 403) return clientRefused();
  const cause = new Error(answered);
  if (!body.success) return new TollgateError('INVALID_RESPONSE_FORMAT', { cause });
  const code = REFUSALS.find((refusal) => refusal === body.data.code);
  if (code) return new TollgateError(code, { cause });
  if (TOKEN_REFUSED.includes(error)) return new TollgateError('VALIDATION_FAILED', { cause });
  if (NOT_NOW.includes(error)) return new TollgateError('AUTH_SERVICE_UNAVAILABLE', { cause });
  return clientRefused();
}
