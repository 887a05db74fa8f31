import { Metadata } from '../auth/client/metadata.ts';
import { KeySet } from '../auth/key-set.ts';
import { isJwt, TokenVerifier } from '../auth/tokens.ts';
import type { Config } from '../config.ts';
import { systemClock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { TollgateError } from '../protocol/errors.ts';
import { type Finding, findings, reasonOf } from './findings.ts';

const TIMEOUT_MS = 5_000;
/** Any id that no issuer uses: a readable key set answers that it has no such key. */
const UNUSED_KEY_ID = 'tollgate-doctor';

/** One source of tokens, as the checks need it. Each method throws the error with which the gateway would fail. */
export interface IdentityProvider {
  /** Name in the report. */
  readonly name: string;
  /** Reads the metadata of the provider. */
  readonly discover: () => Promise<unknown>;
  /** Reads the public keys; undefined if tokens are signed with a shared secret. */
  readonly keys: (() => Promise<unknown>) | undefined;
  /** Verifies a token as a handshake does. */
  readonly verify: (token: string) => Promise<unknown>;
}

/** The providers of a configuration. */
export function identityProviders(config: Config, logger: Logger): IdentityProvider[] {
  const { JWKS_URL: jwksUrl, JWT_ISSUER: issuer, AUTH_SERVICE_URL: url } = config;
  const clock = systemClock;
  const secrets = [config.JWT_SECRET_KEY, config.JWT_SECRET_KEY_PREVIOUS].filter((secret) => secret !== undefined);
  const options = { issuer, audience: config.JWT_AUDIENCE, secrets, jwksUrl, acceptedTypes: config.JWT_ACCEPTED_TYPES };
  const metadata = new Metadata(
    {
      clock,
      logger,
      fetch: async (target, read) => {
        const signal = AbortSignal.timeout(TIMEOUT_MS);
        const { status, ok, ...response } = await answerOf(target, signal);
        return read({ status, ok, ...response });
      },
    },
    { url, issuer },
  );
  const keySet = jwksUrl === undefined ? undefined : new KeySet({ clock }, { url: jwksUrl });
  const tokens = new TokenVerifier({ clock }, options);
  return [
    {
      name: 'JWT_ISSUER',
      discover: () => metadata.endpoints(),
      keys: keySet && (() => readable(keySet)),
      verify: (token) => tokens.verifyAccess(token, 'header'),
    },
  ];
}

async function answerOf(url: URL, signal: AbortSignal) {
  const response = await fetch(url, { signal, redirect: 'manual', headers: { accept: 'application/json' } });
  const text = await response.text();
  return { status: response.status, ok: response.ok, json: parsed(text) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function readable(keySet: KeySet): Promise<void> {
  try {
    await keySet.get(UNUSED_KEY_ID);
  } catch (error) {
    const isUnknownKey = error instanceof TollgateError && error.code === 'VALIDATION_FAILED';
    if (!isUnknownKey) throw error;
  }
}

/** @param token a user's token that should be accepted; undefined to check the provider only */
export async function checkProvider(provider: IdentityProvider, token: string | undefined): Promise<Finding[]> {
  const { ok, problem } = findings(`identity ${provider.name}`);
  const metadata = await outcome(
    provider.discover,
    () => ok('metadata', 'readable, and of the configured issuer'),
    (reason) => {
      const advice =
        'Check AUTH_SERVICE_URL and JWT_ISSUER. The provider needs /.well-known/oauth-authorization-server (RFC 8414). ' +
        'Tokens are verified without it; refresh and introspection are not possible.';
      return problem('failed', 'metadata', reason, advice);
    },
  );
  const keys = await (provider.keys === undefined
    ? ok('keys', 'a shared secret (HS256)')
    : outcome(
        provider.keys,
        () => ok('keys', 'readable'),
        (reason) =>
          problem('failed', 'keys', reason, 'Check JWKS_URL: it must return a JWK set as JSON. No token is accepted.'),
      ));
  if (token === undefined) return [metadata, keys];
  return [metadata, keys, await checkToken(provider, token)];
}

async function checkToken({ name, verify }: IdentityProvider, token: string): Promise<Finding> {
  const { ok, problem } = findings(`identity ${name}`);
  if (!isJwt(token)) {
    const advice = 'Set TOKEN_INTROSPECTION=opaque to accept tokens that only the provider can read, or request a JWT.';
    return problem('warning', 'token', 'the token is not a JWT', advice);
  }
  return outcome(
    () => verify(token),
    () => ok('token', 'accepted'),
    (reason, error) => problem('failed', 'token', ruleOf(error), adviceFor(reason)),
  );
}

const TOKEN_ADVICE: readonly (readonly [RegExp, string])[] = [
  [/expired/, 'Request a new token; if it is new, compare the clocks.'],
  [/future|not active/, 'Compare the clocks of this host and the provider.'],
  [/audience/, 'Set JWT_AUDIENCE to the audience that the provider writes, or add an audience mapper there.'],
  [/issuer/, 'Set JWT_ISSUER to the iss claim of the provider, exactly.'],
  [/signature/, 'The token is signed with another key: check JWKS_URL or JWT_SECRET_KEY.'],
  [/a type|no type/, 'Add the typ of the header to JWT_ACCEPTED_TYPES, if these are access tokens.'],
  [/ID token/, 'Send the access token, not the ID token.'],
  [/of a client/, 'The token belongs to a client, not to a user: use an authorization code flow.'],
  [/key set|fetch|status/, 'The keys cannot be read: see the check above.'],
];

function adviceFor(reason: string): string {
  const found = TOKEN_ADVICE.find(([pattern]) => pattern.test(reason));
  return found?.[1] ?? 'Compare the header and the claims of the token with docs/protocol.md#tokens.';
}

/** The rule that refused a token. Names claims and never their values. */
function ruleOf(error: unknown): string {
  const { code, cause } = error instanceof TollgateError ? error : { code: 'INTERNAL_ERROR', cause: undefined };
  const issues = cause instanceof Error && 'issues' in cause ? (cause.issues as { path: PropertyKey[] }[]) : [];
  if (issues.length > 0) {
    const claims = issues.map(({ path }) => String(path[0])).filter(Boolean);
    return `${code}: missing or unsuitable claims: ${[...new Set(claims)].join(', ')}`;
  }
  if (cause === undefined) return `${code}: no key for the algorithm and key id in the header`;
  return `${code}: ${reasonOf(cause)}`;
}

async function outcome(
  work: () => Promise<unknown>,
  passed: () => Finding,
  failed: (reason: string, error: unknown) => Finding,
): Promise<Finding> {
  try {
    await work();
    return passed();
  } catch (error) {
    return failed(reasonOf(error), error);
  }
}
