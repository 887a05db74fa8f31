import type { FastifyInstance } from 'fastify';
import type { Clock } from '../src/lib/clock.ts';
import { withoutTrailing } from '../src/lib/text.ts';
import type { Redis } from '../src/redis/client.ts';
import { AUTHORIZE_PATH, END_SESSION_PATH } from './authorization-routes.ts';
import { SERVICE_SCOPES } from './clients.ts';
import type { PublicKey } from './id-tokens.ts';
import { GRANT_TYPES } from './oauth-routes.ts';
import { REFRESH_TOKEN_SECONDS } from './sessions.ts';
import { SERVICE_TOKEN_SECONDS } from './token-issuer.ts';
import { DEMO_USERS } from './users.ts';

/** Timeout of the Redis check, below the timeouts of usual health checks. */
const PING_TIMEOUT_MS = 500;

export interface MetadataOptions {
  readonly issuer: string;
  readonly audience: string;
  /** URL at which clients reach this service. */
  readonly baseUrl: string;
  /** URL at which browsers reach this service. */
  readonly publicUrl: string;
  readonly environment: string;
  readonly accessTokenSeconds: number;
  readonly passwordLogin: boolean;
  /** Keys of ID tokens. */
  readonly publicKeys: readonly PublicKey[];
}

/** Registers the routes that require no credential: metadata, key set, configuration and health. */
export function registerMetadataRoutes(
  app: FastifyInstance,
  { redis, clock }: { redis: Redis; clock: Clock },
  options: MetadataOptions,
): void {
  const serverMetadata = describeServer(options);
  const authConfig = describeConfig(options);

  for (const name of ['oauth-authorization-server', 'openid-configuration']) {
    app.get(`/.well-known/${name}`, async (_request, reply) => {
      reply.header('cache-control', 'public, max-age=300');
      return serverMetadata;
    });
  }

  // The keys of ID tokens only. Access tokens are signed with HS256, whose key (`oct`, RFC 7518 section 6.4) both signs
  // and verifies, so every reader of a published key could issue tokens.
  app.get('/.well-known/jwks.json', async (_request, reply) => {
    reply.header('cache-control', 'public, max-age=300');
    return { keys: options.passwordLogin ? options.publicKeys : [] };
  });

  app.get('/auth/config', async () => authConfig);

  app.get('/auth/health', async (_request, reply) => {
    const healthy = await answersInTime(redis, clock);
    reply.status(healthy ? 200 : 503);
    const timestamp = new Date(clock.now()).toISOString();
    return { status: healthy ? 'healthy' : 'unhealthy', service: 'auth', redis: healthy, timestamp };
  });
}

/**
 * Metadata of RFC 8414 section 2 and OpenID Connect Discovery 1.0 section 3. Without accounts there is no sign-in page and
 * therefore no authorization endpoint.
 */
function describeServer({ issuer, baseUrl, publicUrl, passwordLogin }: MetadataOptions): object {
  const at = (path: string, url = baseUrl) => `${withoutTrailing(url, '/')}${path}`;
  const clientAuthentication = ['client_secret_basic', 'client_secret_post'];
  const { password, authorizationCode, ...always } = GRANT_TYPES;
  return {
    issuer,
    token_endpoint: at('/oauth/token'),
    introspection_endpoint: at('/oauth/introspect'),
    revocation_endpoint: at('/oauth/revoke'),
    jwks_uri: at('/.well-known/jwks.json'),
    scopes_supported: [...SERVICE_SCOPES, ...(passwordLogin ? ['openid'] : [])],
    response_types_supported: passwordLogin ? ['code'] : [],
    grant_types_supported: [...Object.values(always), ...(passwordLogin ? [password, authorizationCode] : [])],
    token_endpoint_auth_methods_supported: [...clientAuthentication, 'none'],
    introspection_endpoint_auth_methods_supported: clientAuthentication,
    revocation_endpoint_auth_methods_supported: [...clientAuthentication, ...(passwordLogin ? ['none'] : [])],
    ...(passwordLogin ? signInMetadata((path) => at(path, publicUrl)) : {}),
  };
}

function signInMetadata(at: (path: string) => string): object {
  return {
    authorization_endpoint: at(AUTHORIZE_PATH),
    end_session_endpoint: at(END_SESSION_PATH),
    response_modes_supported: ['query'],
    code_challenge_methods_supported: ['S256'],
    authorization_response_iss_parameter_supported: true,
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256'],
    claims_supported: ['sub', 'email', 'sid', 'auth_time', 'nonce'],
    prompt_values_supported: ['none', 'login'],
  };
}

/** Configuration that legacy clients request before login. */
function describeConfig(options: MetadataOptions): object {
  return {
    environment: options.environment,
    issuer: options.issuer,
    audience: options.audience,
    algorithms: ['HS256'],
    password_login: options.passwordLogin,
    demo_accounts: options.passwordLogin ? DEMO_USERS.map(({ email, plan }) => ({ email, plan })) : [],
    access_token_seconds: options.accessTokenSeconds,
    refresh_token_seconds: REFRESH_TOKEN_SECONDS,
    service_token_seconds: SERVICE_TOKEN_SECONDS,
    endpoints: {
      login: '/auth/login',
      refresh: '/auth/refresh',
      logout: '/auth/logout',
      validate: '/auth/validate',
      service_token: '/auth/service-token',
      health: '/auth/health',
      oauth_metadata: '/.well-known/oauth-authorization-server',
    },
  };
}

async function answersInTime(redis: Redis, clock: Clock): Promise<boolean> {
  let cancel = () => {};
  const late = new Promise<boolean>((resolve) => {
    cancel = clock.after(PING_TIMEOUT_MS, () => resolve(false));
  });
  const answer = redis.ping().then(
    () => true,
    () => false,
  );
  return Promise.race([answer, late]).finally(() => cancel());
}
