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

/** Unchecked claims of an active token, named as in the introspection response. */
export type Introspected = Readonly<Record<string, unknown>>;

const token = z.string().min(1).max(MAX_TOKEN_BYTES);
const TEN_YEARS_SECONDS = 315_360_000;

/** RFC 6749 section 5.1, which only recommends `expires_in`. It is required here to schedule the next refresh. */
const TokenResponse = z.object({
  access_token: token,
  // Other types require more than the token when it is presented: a DPoP proof or a certificate.
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

/** RFC 6749 section 5.2. `code` is an extension of the reference service, more specific than the OAuth error. */
const ErrorResponse = z.object({ error: z.string().regex(/^[\x20-\x7e]{1,64}$/), code: z.string().optional() });

/**
 * Error codes that reject the token or its user (RFC 6749 section 5.2). RFC 8693 section 2.2.2 uses `invalid_request`
 * for an invalid subject token, but so do servers that do not support or allow the exchange (Keycloak). It therefore
 * ends no session: a token that is invalid ends by itself.
 */
const TOKEN_REFUSED = ['invalid_grant'];
const NOT_NOW = ['temporarily_unavailable', 'server_error'];

/** Whether the auth service rejected the token; false for an outage, which does not concern the token. */
export function isRefusal(error: unknown): error is TollgateError & { readonly code: Refusal } {
  return error instanceof TollgateError && isRefusalCode(error.code);
}

/**
 * The auth service rejects the client credentials of this deployment, or does not support or allow the request. Only an
 * operator can fix that; no token is at fault.
 */
export class ClientRefused extends Error {
  /** OAuth error code, which identifies the problem. */
  readonly error: string;
  /** What to do about it, for the log. */
  readonly advice: string;

  constructor(answered: string, error: string, advice: string) {
    super(answered);
    this.error = error;
    this.advice = advice;
  }
}

const CREDENTIALS = 'the auth service rejects the client credentials, check AUTH_CLIENT_ID and SERVICE_SECRET';
const ADVICE: ReadonlyMap<string, string> = new Map([
  ['invalid_client', CREDENTIALS],
  [
    'invalid_request',
    'the auth service does not accept the request: check that the grant is enabled for the client (Keycloak: "Standard token exchange")',
  ],
  [
    'unsupported_grant_type',
    'the auth service does not support this grant: sessions end with their tokens unless clients present newer ones',
  ],
  ['unauthorized_client', 'the auth service does not allow this grant to the client: enable it for AUTH_CLIENT_ID'],
  [
    'access_denied',
    'a policy of the auth service denies this grant to the client: check the policies for AUTH_CLIENT_ID',
  ],
]);

/**
 * Reads a token response.
 * @param sentAt when the request was sent, ms. The expiry counts from then, so that it is never later than the real
 *   one.
 * @throws Fault
 */
export function readToken(json: unknown, sentAt: number): IssuedToken {
  const { access_token, expires_in, refresh_token } = usable(TokenResponse, json);
  const issued = { accessToken: access_token, expiresAt: sentAt + expires_in * 1000 };
  return refresh_token === undefined ? issued : { ...issued, refreshToken: refresh_token };
}

/** Returns the claims, or undefined for a token that is not active. @throws Fault */
export function readIntrospection(json: unknown): Introspected | undefined {
  const { active, ...claims } = usable(IntrospectionResponse, json);
  return active ? claims : undefined;
}

/**
 * Maps a 4xx response to an error. A 4xx concerns a single request and never counts for the circuit breaker. Otherwise
 * one client could open the breaker for all others by sending a token that the service answers with 4xx.
 */
export function readRefusal({ status, json }: HttpAnswer): TollgateError {
  const body = ErrorResponse.safeParse(json);
  const error = body.data?.error ?? 'no OAuth error';
  const answered = `status ${status}, ${error}`;
  const clientRefused = (advice: string) => {
    return new TollgateError('AUTH_SERVICE_UNAVAILABLE', { cause: new ClientRefused(answered, error, advice) });
  };
  // RFC 6749 section 5.2: 401 means that client authentication failed.
  if (status === 401) return clientRefused(CREDENTIALS);
  if (status === 403) return clientRefused(ADVICE.get(error) ?? CREDENTIALS);
  const cause = new Error(answered);
  if (!body.success) return new TollgateError('INVALID_RESPONSE_FORMAT', { cause });
  const code = REFUSALS.find((refusal) => refusal === body.data.code);
  if (code) return new TollgateError(code, { cause });
  if (TOKEN_REFUSED.includes(error)) return new TollgateError('VALIDATION_FAILED', { cause });
  if (NOT_NOW.includes(error)) return new TollgateError('AUTH_SERVICE_UNAVAILABLE', { cause });
  return clientRefused(ADVICE.get(error) ?? 'the auth service refuses the request of the client');
}
