import { createSecretKey, randomBytes } from 'node:crypto';
import jwt from 'jsonwebtoken';
import type { StackAddresses } from '../../test/support/stack-processes.ts';

const PLAN = 'enterprise';
const LIFE_SECONDS = 12 * 3_600;
const REQUEST_MS = 5_000;
/** A cached service token is used this long; it lives for 40 s at least. */
const SERVICE_TOKEN_MS = 20_000;

export interface User {
  readonly id: string;
  readonly token: () => Promise<string>;
}

type Signing = Pick<StackAddresses, 'authUrl' | 'secrets'>;

/** A user with a signed token that outlives the round. */
export function mintedUser(of: Signing, id: string, plan: string = PLAN): User {
  const { token } = mintedSession(of, id, plan);
  return { id, token: async () => token };
}

/** A signed token with a session of its own, which can be revoked. */
export function mintedSession(
  { authUrl, secrets }: Signing,
  id: string,
  plan: string = PLAN,
): { readonly token: string; readonly session: string } {
  const random = () => randomBytes(12).toString('base64url');
  const session = random();
  const claims = { sub: id, plan, permissions: ['basic'], jti: random(), sid: session, token_use: 'access' };
  const key = createSecretKey(Buffer.from(secrets.jwt));
  const options = { issuer: authUrl, audience: 'tollgate', expiresIn: LIFE_SECONDS };
  return { token: jwt.sign(claims, key, { ...options, header: { alg: 'HS256', typ: 'at+jwt' } }), session };
}

/** A user with a session at the auth service, whose short access token the workers refresh. */
export async function sessionUser(of: StackAddresses): Promise<User> {
  const grant = { grant_type: 'password', username: `${PLAN}@demo.local`, password: of.demoPassword };
  const token = () => requestToken(of, grant);
  const { sub } = jwt.decode(await token()) as { readonly sub: string };
  return { id: sub, token };
}

/** Returns a function with a valid service token for all reading routes. */
export function serviceTokens(of: StackAddresses): () => Promise<string> {
  let cached: { readonly token: string; readonly at: number } | undefined;
  return async () => {
    if (cached && performance.now() - cached.at < SERVICE_TOKEN_MS) return cached.token;
    const credentials = { client_id: 'torture', client_secret: of.secrets.service };
    const grant = { grant_type: 'client_credentials', ...credentials, scope: 'usage:read admin' };
    cached = { token: await requestToken(of, grant), at: performance.now() };
    return cached.token;
  };
}

async function requestToken({ authUrl }: StackAddresses, grant: Record<string, string>): Promise<string> {
  const signal = AbortSignal.timeout(REQUEST_MS);
  const response = await fetch(`${authUrl}/oauth/token`, { method: 'POST', body: new URLSearchParams(grant), signal });
  if (!response.ok) throw new Error(`the auth service answered ${response.status}`);
  return ((await response.json()) as { readonly access_token: string }).access_token;
}
