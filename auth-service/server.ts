import formBody from '@fastify/formbody';
import type { FastifyInstance } from 'fastify';
import { Accounts } from '../src/accounts/accounts.ts';
import { Revocations } from '../src/accounts/revocations.ts';
import { Catalogues, catalogueSources, logReloads } from '../src/catalogue/catalogues.ts';
import { type Config, ConfigError } from '../src/config.ts';
import { createApp } from '../src/http/app.ts';
import { allowOrigins } from '../src/http/cors.ts';
import { METADATA_HEADERS } from '../src/http/mcp-metadata-routes.ts';
import { type Clock, sleep, systemClock } from '../src/lib/clock.ts';
import { Closers } from '../src/lib/closers.ts';
import { createLogger, type Logger } from '../src/lib/logger.ts';
import { connectRedis, disconnectRedis } from '../src/redis/client.ts';
import { Keys } from '../src/redis/keys.ts';
import { AccountStatuses } from './account-status.ts';
import { registerAccountRoutes } from './admin-routes.ts';
import { AuthorizationCodes } from './authorization-codes.ts';
import { registerAuthorizationRoutes } from './authorization-routes.ts';
import { Clients } from './clients.ts';
import { ConsoleClient } from './console-client.ts';
import { Grants } from './grants.ts';
import { IdTokens } from './id-tokens.ts';
import { IntrospectionEndpoint } from './introspection-endpoint.ts';
import { registerLegacyRoutes } from './legacy-routes.ts';
import { LiveTokens } from './live-tokens.ts';
import { Logins } from './logins.ts';
import { registerMetadataRoutes } from './metadata-routes.ts';
import { registerOAuthRoutes } from './oauth-routes.ts';
import { PASSWORD_COST, type PasswordCost, Passwords } from './passwords.ts';
import { RefreshTokens } from './refresh-tokens.ts';
import { Sessions } from './sessions.ts';
import { TokenIssuer } from './token-issuer.ts';
import { Users } from './users.ts';

/** Lifetimes per environment. Short in development, so that token refreshes can be observed. */
const ACCESS_TOKEN_SECONDS = { development: 60, test: 60, staging: 900, production: 900 } as const;

/** Timeout of requests in flight at shutdown. A login takes less than a second, also when several wait for CPU. */
const CLOSE_TIMEOUT_MS = 20_000;
/** Tolerated clock difference between services. A revocation is kept longer than its target by this time. */
const CLOCK_DIFFERENCE_MS = 60_000;

export interface AuthServiceOptions {
  readonly logger?: Logger;
  readonly clock?: Clock;
  /** Lower cost for tests with many logins; never set in a deployment. */
  readonly passwordCost?: PasswordCost;
}

export interface RunningAuthService {
  readonly port: number;
  /** Reloads the plans. */
  reload(): void;
  close(): Promise<void>;
}

/**
 * Starts the reference auth service: an OAuth 2.0 server for development, tests and small deployments.
 * @throws ConfigError without `JWT_SECRET_KEY`; Error if Redis or the port is unavailable
 */
export async function startAuthService(config: Config, options: AuthServiceOptions = {}): Promise<RunningAuthService> {
  const secrets = signingSecrets(config);
  const logger = options.logger ?? createLogger('auth-service', config.LOG_LEVEL);
  const clock = options.clock ?? systemClock;
  const closers = new Closers();
  try {
    const catalogues = new Catalogues(catalogueSources(config.CATALOGUE_DIR, config.TOOL_SERVERS));
    const redis = await connectRedis(config, 'commands', logger);
    closers.add('redis', () => disconnectRedis(redis));
    const keys = new Keys(config.REDIS_KEY_PREFIX);
    const { plans } = catalogues;
    logReloads(catalogues, { logger });

    const { JWT_ISSUER: issuer, JWT_AUDIENCE: audience, ENVIRONMENT: environment } = config;
    const passwordLogin = environment === 'development' || environment === 'test';
    const accessTokenSeconds = config.ACCESS_TOKEN_SECONDS ?? ACCESS_TOKEN_SECONDS[environment];

    const { JWT_ACCEPTED_TYPES: acceptedTypes } = config;
    const tokens = new TokenIssuer({ clock }, { issuer, audience, secrets, accessTokenSeconds, acceptedTypes });
    // A connection remains open this long after failed refreshes, and its client then presents the expired token.
    const exchangeGraceMs = config.TOKEN_DEGRADED_TIMEOUT_SECONDS * 1000;
    const revocations = new Revocations({ redis, keys });
    const refreshTokens = new RefreshTokens(secrets);
    const tokenTailMs = accessTokenSeconds * 1000 + exchangeGraceMs + CLOCK_DIFFERENCE_MS;
    const sessions = new Sessions({ redis, keys, clock, refreshTokens, revocations }, { tokenTailMs });
    const accountStatuses = new AccountStatuses({ redis, keys, accounts: new Accounts({ redis, keys }) });
    const passwords = new Passwords(options.passwordCost ?? PASSWORD_COST);
    const users = new Users({ redis, keys, passwords }, { enabled: passwordLogin });
    if (passwordLogin && config.DEMO_PASSWORD !== undefined) await users.seed(config.DEMO_PASSWORD);
    const logins = new Logins({ redis, keys, clock, users, passwords, logger });
    const liveTokens = new LiveTokens({ tokens, revocations, sessions, accountStatuses, clock }, { exchangeGraceMs });
    const { CONSOLE_CLIENT_ID: clientId, CONSOLE_REDIRECT_URIS: redirectUris } = config;
    const console = new ConsoleClient({ clientId, redirectUris });
    const codes = new AuthorizationCodes({ redis, keys });
    const idTokens = new IdTokens({ clock }, { issuer, audience: clientId, secrets });
    const signingIn = { codes, idTokens, sessions, logger, clock };
    const accounts = { accountStatuses, users, logins, liveTokens, plans };
    const grants = new Grants({ ...signingIn, ...accounts, console, tokens });
    const clients = new Clients({ liveTokens }, { serviceSecret: config.SERVICE_SECRET });
    const introspection = new IntrospectionEndpoint({ liveTokens, sessions, accountStatuses }, { issuer, audience });

    const app = createApp({ logger, trustedProxyHops: config.TRUSTED_PROXY_HOPS });
    closers.add('http', () => app.close());
    answerBeforeClose(app, clock);
    addCommonBehaviour(app, [...config.CORS_ORIGINS, ...console.origins]);
    const baseUrl = config.AUTH_SERVICE_URL;
    const publicUrl = config.AUTH_PUBLIC_URL;
    const metadata = {
      issuer,
      audience,
      baseUrl,
      publicUrl,
      environment,
      accessTokenSeconds,
      passwordLogin,
      publicKeys: idTokens.publicKeys,
    };
    registerMetadataRoutes(app, { redis, clock }, metadata);
    registerOAuthRoutes(
      app,
      { grants, clients, introspection, liveTokens, sessions, console, logger },
      { audience, passwordLogin },
    );
    if (passwordLogin) registerAuthorizationRoutes(app, { ...signingIn, client: console, grants }, { issuer });
    registerLegacyRoutes(app, { grants, clients, introspection, liveTokens }, { passwordLogin });
    registerAccountRoutes(app, { clients, accountStatuses, plans, logger });

    await app.listen({ host: config.HOST, port: config.AUTH_PORT });
    const address = app.server.address();
    const port = typeof address === 'object' && address !== null ? address.port : config.AUTH_PORT;
    return { port, reload: () => catalogues.reload(), close: () => closers.close() };
  } catch (error) {
    await closers.close();
    throw error;
  }
}

/** Returns the HS256 secrets, which this service requires. `JWKS_URL` names the keys of another server for gateways. */
function signingSecrets(config: Config): [string, ...string[]] {
  const { JWT_SECRET_KEY: current, JWT_SECRET_KEY_PREVIOUS: previous } = config;
  if (current === undefined) {
    const message = 'is required: the reference auth service signs its tokens with it';
    throw new ConfigError([{ code: 'MISSING_JWT_SECRET', name: 'JWT_SECRET_KEY', message }]);
  }
  return previous === undefined ? [current] : [current, previous];
}

/**
 * Lets requests in flight end before the server closes, which ends all sockets. Further requests get 503 meanwhile.
 */
function answerBeforeClose(app: FastifyInstance, clock: Clock): void {
  let inFlight = 0;
  let onIdle: (() => void) | undefined;
  const ended = () => {
    inFlight -= 1;
    if (inFlight === 0) onIdle?.();
  };
  app.addHook('onRequest', async (_request, { raw: response }) => {
    inFlight += 1;
    // Emitted once, after the response or when the client has disconnected.
    response.once('close', ended);
  });
  app.addHook('preClose', async () => {
    if (inFlight === 0) return;
    const idle = new Promise<void>((resolve) => {
      onIdle = resolve;
    });
    await Promise.race([idle, sleep(clock, CLOSE_TIMEOUT_MS)]);
  });
}

function addCommonBehaviour(app: FastifyInstance, origins: readonly string[]): void {
  app.register(formBody);
  app.addHook('onRequest', async (_request, reply) => {
    // RFC 6749 section 5.1: caches must not store tokens. Cacheable routes override the header.
    reply.header('cache-control', 'no-store').header('pragma', 'no-cache');
  });
  app.addHook('onSend', async (_request, reply, payload) => {
    // RFC 9110 section 15.5.2: a 401 response names the authentication scheme.
    if (reply.statusCode === 401 && !reply.hasHeader('www-authenticate')) {
      reply.header('www-authenticate', 'Bearer realm="tollgate"');
    }
    return payload;
  });
  allowOrigins(app, origins, METADATA_HEADERS);
}
