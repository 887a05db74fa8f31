import { RevocationCache } from '../accounts/revocation-cache.ts';
import { Authenticator } from '../auth/authenticator.ts';
import { AUTH_SERVICE_TIMEOUT_MS, AuthServiceClient, authServiceOptions } from '../auth/client/auth-service-client.ts';
import { TokenIntrospection } from '../auth/introspection.ts';
import { takesRefreshTokens } from '../auth/providers/identity-provider.ts';
import { Tickets } from '../auth/tickets.ts';
import { TokenSeal } from '../auth/token-refresh/token-seal.ts';
import { TokenSessions, tokenLifecycleTimes } from '../auth/token-refresh/token-sessions.ts';
import { TokenVerifier } from '../auth/tokens.ts';
import type { Config } from '../config.ts';
import { countTokenEvents, type TokenEvent } from '../connections/token-lifecycle.ts';
import { Listeners } from '../lib/listeners.ts';
import { composeProviders } from './identity-providers.ts';
import type { GatewayServices } from './services.ts';

/** The authentication of clients and services, and the tokens of live sessions. */
export interface Authentication {
  readonly authenticator: Authenticator;
  readonly tokens: TokenVerifier;
  /** Issuers whose tokens are accepted. */
  readonly issuers: readonly string[];
  readonly tickets: Tickets;
  readonly introspection: TokenIntrospection;
  readonly revocationCache: RevocationCache;
  readonly tokenSessions: TokenSessions;
  readonly tokenEvents: Listeners<TokenEvent>;
}

export function composeAuthentication(config: Config, services: GatewayServices): Authentication {
  const { redis, keys, clock, metrics, logger, tracing, closers } = services;
  const { own, providers } = composeProviders(config);
  const tokens = new TokenVerifier({ clock, logger, metrics }, providers);
  closers.add('identity keys', tokens.start());
  // Without keys, all tokens are introspected by the provider of the variables.
  const issuers = providers.length > 0 ? providers.map(({ issuer }) => issuer) : [own.issuer];
  const tickets = new Tickets({ redis, keys, clock });
  const authService = new AuthServiceClient(
    { clock, metrics, logger, tracing },
    {
      ...authServiceOptions(config),
      // A JWT is accepted if introspection times out; half of the authentication deadline remains for that.
      timeoutMs: Math.min(AUTH_SERVICE_TIMEOUT_MS, config.AUTH_DEADLINE_SECONDS * 500),
    },
  );
  closers.add('auth service', () => authService.close());
  const introspection = new TokenIntrospection(
    { authService, clock, metrics },
    { mode: config.TOKEN_INTROSPECTION, provider: own },
  );
  const seal = new TokenSeal(config.SERVICE_SECRET);
  const revocationCache = new RevocationCache({ clock, logger });
  const authenticator = new Authenticator(
    { tokens, tickets, introspection, revoked: revocationCache, seal, clock, tracing, logger },
    {
      developmentBypass: config.DEV_AUTH_BYPASS,
      operators: { issuer: config.CONSOLE_ISSUER ?? config.JWT_ISSUER, clientId: config.CONSOLE_CLIENT_ID },
      refreshTokenProviders: new Set(providers.filter(takesRefreshTokens).map(({ name }) => name)),
    },
  );
  const tokenSessions = new TokenSessions({ redis, keys, clock, seal }, tokenLifecycleTimes(config));
  const tokenEvents = new Listeners<TokenEvent>((error) => logger.error({ err: error }, 'token event listener failed'));
  countTokenEvents(tokenEvents, metrics);
  return { authenticator, tokens, issuers, tickets, introspection, revocationCache, tokenSessions, tokenEvents };
}
