import { createSecretKey, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import jwt from 'jsonwebtoken';
import type { DevAccess } from '../../scripts/lib/dev-access.ts';
import { UserError } from '../../scripts/lib/user-error.ts';

export interface TokenOptions {
  readonly users: number;
  /** A file with one token per line; lines that begin with # are ignored. */
  readonly tokens?: string | undefined;
  /** Whether to log the demo accounts in. */
  readonly login: boolean;
  readonly plan: string;
  readonly secret?: string | undefined;
  /** Required lifetime of minted tokens, ms. */
  readonly lifeMs: number;
}

const DEMO_PLANS = ['free', 'pro', 'enterprise', 'developer'];
/**
 * Lifetime beyond the load. A token that came due during the run would be refreshed for a session that the auth service
 * does not have.
 */
const SPARE_SECONDS = 3_600;

/**
 * Returns one token per user.
 * @throws UserError if there are not enough
 */
export async function userTokens(access: DevAccess, options: TokenOptions): Promise<readonly string[]> {
  const { users, tokens: file, login } = options;
  if (file !== undefined && login) throw new UserError('Use either --tokens or --login, not both.');
  if (file === undefined && !login) return mint(access, options);
  const found = file === undefined ? await demoTokens(access, users) : tokensIn(file);
  if (found.length >= users) return found.slice(0, users);
  const advice = login
    ? 'there are four demo accounts; for more users give --tokens <file>, or --secret for a development pool'
    : `the file has ${found.length}`;
  throw new UserError(`--users ${users} needs as many tokens: ${advice}.`);
}

function tokensIn(file: string): string[] {
  try {
    const lines = readFileSync(file, 'utf8').split('\n');
    return lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
  } catch (cause) {
    throw new UserError(`The tokens in ${file} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

function demoTokens(access: DevAccess, users: number): Promise<string[]> {
  return Promise.all(DEMO_PLANS.slice(0, users).map((plan) => access.userToken(plan)));
}

/**
 * Mints tokens for the same users in every run, so that many runs leave no more keys in Redis than one. Each run has
 * new session ids, because a revoked session stays revoked.
 */
function mint(access: DevAccess, { users, plan, secret: given, lifeMs }: TokenOptions): string[] {
  const { secret, issuer } = access.signing(given);
  const key = createSecretKey(Buffer.from(secret));
  const audience = process.env.JWT_AUDIENCE || 'tollgate';
  const expiresIn = Math.ceil(lifeMs / 1_000) + SPARE_SECONDS;
  return Array.from({ length: users }, (_, at) => {
    const sub = `load-user-${at + 1}`;
    const id = () => randomBytes(12).toString('base64url');
    const claims = { sub, plan, permissions: [], jti: `jti_${id()}`, sid: `sid_${id()}`, token_use: 'access' };
    return jwt.sign(claims, key, { header: { alg: 'HS256', typ: 'at+jwt' }, issuer, audience, expiresIn });
  });
}
