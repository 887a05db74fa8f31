import type { FastifyInstance } from 'fastify';
import type { Clock } from '../src/lib/clock.ts';
import { withoutTrailing } from '../src/lib/text.ts';
import type { Redis } from '../src/redis/client.ts';
import { SERVICE_SCOPES } from './clients.ts';
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
  readonly environment: string;
  readonly accessTokenSeconds: number;
  readonly passwordLogin: boolean;
}

/** Registers the routes that require no credential: metadata, key set, configuration and health. */
export function registerMetadataRoutes(
  app: FastifyInstance,
  { redis, clock }: { redis: Redis; clock: Clock },
  options: MetadataOptions,
): void {
  const serverMetadata = describeServer(options);
  const authConfig = describeConfig(options);

  app.get('/.well-known/oauth-authorization-server', async (_request, reply) => {
    reply.header('cache-control', 'public, max-age=300');
    return serverMetadata;
  });

  // Empty on purpose. Tokens are signed with HS256, whose key (`oct`, RFC 7518 section 6.4) both signs and verifies, so
  // every reader of a published key could issue tokens. A server with RS256 or ES256 keys publishes them here.
  app.get('/.well-known/jwks.json', async (_request, reply) => {
    reply.header('cache-control', 'public, max-age=300');
    return { keys: [] };
  });

  app.get('/auth/config', async () => authConfig);

  app.get('/auth/health', async (_request, reply) => {
    const healthy = await answersInTime(redis, clock);
    reply.status(healthy ? 200 : 503);
    const timestamp = new Date(clock.now()).toISOString();
    return { status: healthy ? 'healthy' : 'unhealthy', service: 'auth', redis: healthy, timestamp };
  });
}

/** Metadata of RFC 8414 section 2. There is no login page and therefore no authorization endpoint. */
function describeServer({ issuer, baseUrl, passwordLogin }: MetadataOptions): object {
  const at = (path: string) => `${withoutTrailing(baseUrl, '/')}${path}`;
  const clientAuthentication = ['client_secret_basic', 'client_secret_post'];
  const { password, ...always } = GRANT_TYPES;
  return {
    issuer,
    token_endpoint: at('/oauth/token'),
    introspection_endpoint: at('/oauth/introspect'),
    revocation_endpoint: at('/oauth/revoke'),
    jwks_uri: at('/.well-known/jwks.json'),
    scopes_supported: SERVICE_SCOPES,
    response_types_supported: [],
    grant_types_supported: [...Object.values(always), ...(passwordLogin ? [password] : [])],
    token_endpoint_auth_methods_supported: [...clientAuthentication, 'none'],
    introspection_endpoint_auth_methods_supported: clientAuthentication,
    revocation_endpoint_auth_methods_supported: clientAuthentication,
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
