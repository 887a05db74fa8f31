import { createSecretKey, randomBytes } from 'node:crypto';
import jwt from 'jsonwebtoken';
import type { StackAddresses } from '../../test/support/stack-processes.ts';
import type { KeyServer } from './key-server.ts';

const PLAN = 'enterprise';
const LIFE_SECONDS = 12 * 3_600;
const REQUEST_MS = 5_000;
/** A cached token is used this long; it lives for 40 s at least. */
const TOKEN_MS = 20_000;

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
  const claims = claimsOf(id, plan);
  const key = createSecretKey(Buffer.from(secrets.jwt));
  const options = { issuer: authUrl, audience: 'tollgate', expiresIn: LIFE_SECONDS };
  return { token: jwt.sign(claims, key, { ...options, header: { alg: 'HS256', typ: 'at+jwt' } }), session: claims.sid };
}

/** A user whose tokens are signed by the current key of the issuer's key set. */
export function keySetUser({ authUrl }: StackAddresses, id: string, keys: KeyServer): User {
  const token = async () => {
    const { kid, key } = keys.current;
    const options = { issuer: authUrl, audience: 'tollgate', expiresIn: LIFE_SECONDS };
    return jwt.sign(claimsOf(id, PLAN), key, { ...options, header: { alg: 'ES256', typ: 'at+jwt', kid } });
  };
  return { id, token };
}

function claimsOf(sub: string, plan: string) {
  const random = () => randomBytes(12).toString('base64url');
  return { sub, plan, permissions: ['basic'], jti: random(), sid: random(), token_use: 'access' };
}

/** A user with a session at the auth service, whose short access token the workers refresh. */
export async function sessionUser(of: StackAddresses): Promise<User> {
  const grant = { grant_type: 'password', username: `${PLAN}@demo.local`, password: of.demoPassword };
  const token = cached(() => requestToken(of, grant));
  const { sub } = jwt.decode(await token()) as { readonly sub: string };
  return { id: sub, token };
}

/** Returns a function with a valid service token for all reading routes. */
export function serviceTokens(of: StackAddresses): () => Promise<string> {
  const credentials = { client_id: 'torture', client_secret: of.secrets.service };
  const grant = { grant_type: 'client_credentials', ...credentials, scope: 'usage:read admin' };
  return cached(() => requestToken(of, grant));
}

/** The auth service limits the logins of a user. */
function cached(request: () => Promise<string>): () => Promise<string> {
  let last: { readonly token: string; readonly at: number } | undefined;
  return async () => {
    if (last && performance.now() - last.at < TOKEN_MS) return last.token;
    last = { token: await request(), at: performance.now() };
    return last.token;
  };
}

async function requestToken({ authUrl }: StackAddresses, grant: Record<string, string>): Promise<string> {
  const signal = AbortSignal.timeout(REQUEST_MS);
  const response = await fetch(`${authUrl}/oauth/token`, { method: 'POST', body: new URLSearchParams(grant), signal });
  if (!response.ok) throw new Error(`the auth service answered ${response.status}`);
  return ((await response.json()) as { readonly access_token: string }).access_token;
}
