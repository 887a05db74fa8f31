import { z } from 'zod';
import type { ErrorCode } from './errors.ts';

/** What the auth service says of a token that is definitely no good any more, as opposed to being out of reach. */
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

/** What a worker tells a session's connections, on the user's channel. */
export const TokenControl = z.discriminatedUnion('control', [
  /** There is a newer token, sealed; `expires_at` in milliseconds. */
  z.object({
    control: z.literal('token'),
    session: z.string(),
    token: z.string(),
    expires_at: z.number(),
    refreshes: z.number(),
  }),
  /** A refresh failed for a reason that may pass; `degraded` once it has failed too often. */
  z.object({
    control: z.literal('token_failed'),
    session: z.string(),
    attempt: z.number(),
    retry_in_ms: z.number(),
    degraded: z.boolean(),
  }),
  /** The auth service refused the session for good. */
  z.object({ control: z.literal('session_ended'), session: z.string(), code: z.enum(REFUSALS) }),
]);
export type TokenControl = z.infer<typeof TokenControl>;

/** The state of a connection's token. */
export const TOKEN_STATES = ['active', 'refresh_failed', 'degraded'] as const;
export type TokenState = (typeof TOKEN_STATES)[number];

/** Why a session ended, as `session_terminated` says it. */
export type TerminationReason = 'degraded_timeout' | 'revoked' | 'blocked' | 'expired' | 'refused';

const TERMINATION_REASONS: Readonly<Record<Refusal, TerminationReason>> = {
  TOKEN_REVOKED: 'revoked',
  USER_BLOCKED: 'blocked',
  TOKEN_EXPIRED: 'expired',
  VALIDATION_FAILED: 'refused',
};

/** Undefined for an error that says nothing against the session. */
export function terminationReason(code: ErrorCode): TerminationReason | undefined {
  return isRefusalCode(code) ? TERMINATION_REASONS[code] : undefined;
}
