import { z } from 'zod';
import type { ErrorCode } from './errors.ts';

/** Codes with which the auth service rejects a token for good, in contrast to an outage. */
export const REFUSALS = [
  'TOKEN_REVOKED',
  'USER_BLOCKED',
  'TOKEN_EXPIRED',
  'VALIDATION_FAILED',
] as const satisfies ErrorCode[];
export type Refusal = (typeof REFUSALS)[number];

export function isRefusalCode(code: ErrorCode): code is Refusal {
  return (REFUSALS as readonly ErrorCode[]).includes(code);
}

/** Message from a worker to the connections of a session, on the user channel. */
export const TokenControl = z.discriminatedUnion('control', [
  /**
   * A newer, sealed token is available; `expires_at` in milliseconds. `refresh_token` is the sealed refresh token of
   * the session, for the connections of `refresh_family`: those that handed over one of its predecessors.
   */
  z.object({
    control: z.literal('token'),
    session: z.string(),
    token: z.string(),
    expires_at: z.number(),
    refreshes: z.number(),
    refresh_token: z.string().optional(),
    refresh_family: z.string().optional(),
  }),
  /** A refresh failed temporarily; `degraded` after too many failures in a row. */
  z.object({
    control: z.literal('token_failed'),
    session: z.string(),
    attempt: z.number(),
    retry_in_ms: z.number(),
    degraded: z.boolean(),
  }),
  /** The auth service rejected the session for good. */
  z.object({ control: z.literal('session_ended'), session: z.string(), code: z.enum(REFUSALS) }),
]);
export type TokenControl = z.infer<typeof TokenControl>;

/** States of a connection's token. */
export const TOKEN_STATES = ['active', 'refresh_failed', 'degraded'] as const;
export type TokenState = (typeof TOKEN_STATES)[number];

/** Value of `reason` in `session_terminated`. */
export type TerminationReason = 'degraded_timeout' | 'revoked' | 'blocked' | 'expired' | 'refused';

const TERMINATION_REASONS: Readonly<Record<Refusal, TerminationReason>> = {
  TOKEN_REVOKED: 'revoked',
  USER_BLOCKED: 'blocked',
  TOKEN_EXPIRED: 'expired',
  VALIDATION_FAILED: 'refused',
};

/** Returns undefined for an error that does not concern the session. */
export function terminationReason(code: ErrorCode): TerminationReason | undefined {
  return isRefusalCode(code) ? TERMINATION_REASONS[code] : undefined;
}
