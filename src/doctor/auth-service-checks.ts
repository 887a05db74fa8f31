import { Attempts } from '../auth/client/attempts.ts';
import { AUTH_SERVICE_TIMEOUT_MS, authServiceOptions } from '../auth/client/auth-service-client.ts';
import { type Endpoints, Metadata } from '../auth/client/metadata.ts';
import type { Config } from '../config.ts';
import { systemClock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { type Finding, findings, reasonOf, twice } from './findings.ts';

/** Reads the metadata of the auth service, which refreshes and introspects tokens. */
export async function checkAuthService(config: Config, logger: Logger): Promise<Finding[]> {
  const { ok, problem } = findings('auth service');
  const options = { timeoutMs: AUTH_SERVICE_TIMEOUT_MS, onBreakerChange: () => {} };
  const attempts = new Attempts({ clock: systemClock }, options);
  const metadata = new Metadata(
    { clock: systemClock, logger, fetch: (url, read) => attempts.send({ url }, read) },
    authServiceOptions(config),
  );
  let endpoints: Endpoints;
  try {
    endpoints = await twice(() => metadata.endpoints());
  } catch (error) {
    const advice =
      'Check AUTH_SERVICE_URL and JWT_ISSUER. The service needs /.well-known/oauth-authorization-server (RFC 8414) or ' +
      '/.well-known/openid-configuration. Tokens are verified without it; refresh and introspection are not possible.';
    return [problem('failed', 'metadata', reasonOf(error), advice)];
  } finally {
    await attempts.close();
  }
  const readable = ok('metadata', 'readable, and of the configured issuer');
  const mode = config.TOKEN_INTROSPECTION;
  if (mode === 'never') return [readable];
  if (endpoints.introspection !== undefined) return [readable, ok('introspection', 'has an endpoint')];
  const advice = 'Set TOKEN_INTROSPECTION=never, or use a service with an introspection endpoint (RFC 7662).';
  return [readable, problem('failed', 'introspection', `no endpoint, and TOKEN_INTROSPECTION is ${mode}`, advice)];
}
