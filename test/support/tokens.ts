import { createSecretKey, randomBytes } from 'node:crypto';
import jwt from 'jsonwebtoken';
import plans from '../../config/plans.json' with { type: 'json' };
import { recordSecrets } from '../../scripts/lib/leaks.ts';
import { type StackAddresses, stack } from './stack.ts';

export type PlanName = keyof typeof plans.plans;

/** The claims of an access token: docs/protocol.md. */
export interface AccessClaims {
  readonly iss: string;
  readonly aud: string;
  readonly sub: string;
  readonly iat: number;
  readonly exp: number;
  readonly jti: string;
  readonly sid: string;
  readonly email: string;
  readonly plan: string;
  readonly permissions: readonly string[];
  readonly roles: readonly string[];
  readonly feature_flags: Readonly<Record<string, boolean>>;
  readonly token_use: string;
}

export interface MintOptions {
  readonly expiresInSeconds?: number;
  /** The stack whose secret signs and whose auth service is the issuer; the shared one by default. */
  readonly stack?: StackAddresses;
  /** Signs with this instead of the stack's secret. */
  readonly secret?: string;
}

export interface MintedToken {
  readonly token: string;
  readonly userId: string;
  readonly claims: AccessClaims;
}

/** Returns an identifier that no other test uses. */
export function freshUserId(): string {
  return `user_${randomBytes(9).toString('base64url')}`;
}

/**
 * Returns a valid access token of a fresh user, as the auth service signs it. `claims` replaces single claims;
 * `undefined` removes one.
 */
export function mintToken(claims: Partial<AccessClaims> = {}, options: MintOptions = {}): MintedToken {
  const { expiresInSeconds = 600, stack: of = stack() } = options;
  const now = Math.floor(Date.now() / 1_000);
  const userId = claims.sub ?? freshUserId();
  const all: AccessClaims = {
    iss: of.authUrl,
    aud: 'tollgate',
    sub: userId,
    iat: now,
    exp: now + expiresInSeconds,
    jti: `jti_${randomBytes(12).toString('base64url')}`,
    sid: `sid_${randomBytes(12).toString('base64url')}`,
    email: `${userId}@example.test`,
    ...planClaims(claims.plan ?? 'pro'),
    roles: [],
    token_use: 'access',
    ...claims,
  };
  const given = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  const key = createSecretKey(Buffer.from(options.secret ?? of.secrets.jwt));
  const token = jwt.sign(given, key, { algorithm: 'HS256', noTimestamp: given.iat === undefined });
  recordSecrets(token);
  return {
    token,
    userId,
    claims: all,
  };
}

/** Returns the token alone. */
export function validToken(claims: Partial<AccessClaims> = {}): string {
  return mintToken(claims).token;
}

export interface LoginTokens {
  readonly access_token: string;
  readonly refresh_token: string;
  readonly token_type: string;
  readonly expires_in: number;
}

/** Logs in with the demo account of a plan, at the real auth service. */
export function login(plan: PlanName = 'pro', of: StackAddresses = stack()): Promise<LoginTokens> {
  return requestToken(of, { grant_type: 'password', username: `${plan}@demo.local`, password: of.demoPassword });
}

/** Returns a service token of the real auth service. @param scope e.g. `usage:read` or `admin` */
export async function serviceToken(
  scope: string,
  { clientId = 'test-service', stack: of = stack() }: { clientId?: string; stack?: StackAddresses } = {},
): Promise<string> {
  const credentials = { client_id: clientId, client_secret: of.secrets.service };
  const { access_token } = await requestToken(of, { grant_type: 'client_credentials', ...credentials, scope });
  return access_token;
}

async function requestToken(of: StackAddresses, grant: Record<string, string>): Promise<LoginTokens> {
  const response = await fetch(`${of.authUrl}/oauth/token`, { method: 'POST', body: new URLSearchParams(grant) });
  if (!response.ok) throw new Error(`the auth service answered ${response.status}: ${await response.text()}`);
  const tokens = (await response.json()) as LoginTokens;
  recordSecrets(tokens.access_token, tokens.refresh_token ?? '');
  return tokens;
}

function planClaims(plan: string): Pick<AccessClaims, 'plan' | 'permissions' | 'feature_flags'> {
  const row = Object.entries(plans.plans).find(([name]) => name === plan)?.[1];
  const flags = (row?.feature_flags ?? []).map((flag) => [flag, true] as const);
  return { plan, permissions: row?.permissions ?? [], feature_flags: Object.fromEntries(flags) };
}
