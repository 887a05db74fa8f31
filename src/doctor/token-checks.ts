import { AuthServiceClient, authServiceOptions } from '../auth/client/auth-service-client.ts';
import { TokenIntrospection } from '../auth/introspection.ts';
import type { IdentityProvider } from '../auth/providers/identity-provider.ts';
import { TokenFault } from '../auth/token-fault.ts';
import { isJwt, TokenVerifier, type TokenVerifierDeps } from '../auth/tokens.ts';
import type { Config } from '../config.ts';
import { jsonObject } from '../lib/jws.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { NO_TRACING } from '../lib/tracing.ts';
import { TollgateError } from '../protocol/errors.ts';
import { type Finding, findings, reasonOf, twice } from './findings.ts';

interface Accepting {
  readonly config: Config;
  /** The provider whose tokens the auth service introspects. */
  readonly own: IdentityProvider;
  readonly providers: readonly IdentityProvider[];
}

interface Deps extends TokenVerifierDeps {
  readonly logger: Logger;
  readonly metrics: Metrics;
}

const { ok, problem } = findings('identity');

/** Verifies a token as a handshake does, except for revocations and the user's limits. */
export async function checkToken(token: string, accepting: Accepting, deps: Deps): Promise<Finding[]> {
  const { config, own, providers } = accepting;
  const authService = new AuthServiceClient({ ...deps, tracing: NO_TRACING }, authServiceOptions(config));
  const introspection = new TokenIntrospection(
    { ...deps, authService },
    { mode: config.TOKEN_INTROSPECTION, provider: own },
  );
  try {
    if (isJwt(token)) {
      // A verifier whose keys could not be fetched does not fetch them again for some seconds.
      const newVerifier = () => new TokenVerifier(deps, providers);
      return [await checkJwt(token, providers, { introspection, newVerifier })];
    }
    if (introspection.mode === 'never') {
      const advice =
        'Set TOKEN_INTROSPECTION=opaque to accept tokens that only the provider can read, or request a JWT.';
      return [problem('warning', 'token', 'the token is not a JWT', advice)];
    }
    await introspection.identify(token, 'header');
    return [ok('token', 'accepted by introspection')];
  } catch (error) {
    return [refused(error, 'the token is not a JWT, and was introspected')];
  } finally {
    await authService.close();
  }
}

interface Verification {
  readonly newVerifier: () => TokenVerifier;
  readonly introspection: TokenIntrospection;
}

async function checkJwt(
  token: string,
  providers: readonly IdentityProvider[],
  { newVerifier, introspection }: Verification,
): Promise<Finding> {
  const issuer = jsonObject(token.split('.')[1] ?? '')?.iss;
  const named = providers.find((provider) => provider.issuer === issuer);
  const source = named
    ? `the issuer is that of provider ${named.name}`
    : 'the issuer is that of no configured provider';
  try {
    const { userId, provider } = await twice(() => newVerifier().verifyAccess(token, 'header'));
    await introspection.confirm(token, userId, provider);
    return ok('token', `accepted; ${source}`);
  } catch (error) {
    return refused(error, source);
  }
}

/** Names the rule and the claim that it read, and never the value. */
function refused(error: unknown, source: string): Finding {
  if (!(error instanceof TollgateError)) return problem('failed', 'token', `${reasonOf(error)}; ${source}`, OTHERWISE);
  const { code, cause } = error;
  if (cause instanceof TokenFault) {
    return problem('failed', 'token', `${code}: ${cause.claim}: ${cause.message}; ${source}`, adviceFor(cause));
  }
  const reason = cause === undefined ? code : `${code}: ${reasonOf(cause)}`;
  return problem('failed', 'token', `${reason}; ${source}`, CODE_ADVICE[code] ?? OTHERWISE);
}

const OTHERWISE = 'Compare the header and the claims of the token with docs/identity.md.';
const CODE_ADVICE: Readonly<Partial<Record<string, string>>> = {
  TOKEN_EXPIRED: 'Request a new token; if it is new, compare the clocks.',
  TOKEN_REVOKED: 'Request a new token: the auth service has ended this one.',
  AUTH_SERVICE_UNAVAILABLE: 'The keys or the auth service cannot be read: see the other checks.',
};

/** Advice by the claim of a refusal, or by its reason. */
const CLAIM_ADVICE: readonly (readonly [RegExp, string])[] = [
  [
    /token that a client|of a client|no users log in/,
    'The token belongs to a client, not to a user: log in as a user.',
  ],
  [/an ID token/, 'Send the access token, not the ID token, or set id_tokens in IDENTITY_PROVIDERS.'],
  [/accepted audiences/, 'Set JWT_AUDIENCE, or audiences in IDENTITY_PROVIDERS, to the audience of the token.'],
  [/^iss:/, 'Set JWT_ISSUER, or issuer in IDENTITY_PROVIDERS, to the iss claim of the token, exactly.'],
  [/^signature:/, 'The token is signed with another key: check JWT_SECRET_KEY, JWKS_URL or keys_url.'],
  [
    /^header kid:/,
    'The issuer publishes no such key: check JWKS_URL or keys_url, and whether the token is of this issuer.',
  ],
  [/^header alg:/, 'Add the algorithm to algorithms in IDENTITY_PROVIDERS; HS256 needs JWT_SECRET_KEY.'],
  [/^header typ:/, 'Add the typ to JWT_ACCEPTED_TYPES or accepted_types, if these are access tokens.'],
  [/^(nbf|iat):/, 'Compare the clocks of this host and the provider, or set clock_skew_seconds.'],
  [/required claim/, 'Compare required in IDENTITY_PROVIDERS with the claims of the token.'],
];

function adviceFor({ claim, message }: TokenFault): string {
  return CLAIM_ADVICE.find(([pattern]) => pattern.test(`${claim}: ${message}`))?.[1] ?? OTHERWISE;
}
