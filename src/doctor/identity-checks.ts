import { KeySet, type KeySetDeps } from '../auth/key-set.ts';
import { discoverKeys } from '../auth/providers/discovery.ts';
import {
  DEFAULT_PROVIDER,
  type IdentityProvider,
  type KeyAlgorithm,
  type KeySource,
} from '../auth/providers/identity-provider.ts';
import { TokenFault } from '../auth/token-fault.ts';
import { CatalogueError } from '../catalogue/catalogue-file.ts';
import { composeProviders } from '../compose/identity-providers.ts';
import type { Config } from '../config.ts';
import { systemClock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { Metrics } from '../lib/metrics.ts';
import { TollgateError } from '../protocol/errors.ts';
import { type Finding, findings, reasonOf, twice } from './findings.ts';
import { checkToken } from './token-checks.ts';

/**
 * Checks each identity provider, its metadata and keys, as a gateway reads them.
 * @param token a user's token that should be accepted; undefined to check the providers only
 */
export async function checkIdentity(config: Config, logger: Logger, token: string | undefined): Promise<Finding[]> {
  const { ok, problem } = findings('identity');
  const deps = { clock: systemClock, logger, metrics: new Metrics() };
  let composed: ReturnType<typeof composeProviders>;
  try {
    composed = composeProviders(config);
  } catch (error) {
    if (!(error instanceof CatalogueError)) throw error;
    const advice = 'Correct the named fields of the file IDENTITY_PROVIDERS; the process does not start before.';
    return [problem('failed', 'providers', reasonOf(error), advice)];
  }
  const { own, providers } = composed;
  const found = await Promise.all(providers.map((provider) => checkProvider(provider, deps)));
  const ofToken = token === undefined ? [] : await checkToken(token, { config, own, providers }, deps);
  const names = providers.map(({ name }) => name).join(', ');
  return [ok('providers', names === '' ? 'none; tokens are introspected' : names), ...found.flat(), ...ofToken];
}

async function checkProvider(provider: IdentityProvider, deps: KeySetDeps): Promise<Finding[]> {
  const { ok, problem } = findings(`identity ${provider.name}`);
  const { keys, secrets } = provider;
  const shared = secrets.length > 0 ? [ok('secret', 'a shared secret (HS256)')] : [];
  if (keys === undefined) return shared;
  if ('discover' in keys) {
    try {
      await twice(() => discoverKeys(keys.discover, deps.clock));
    } catch (error) {
      const advice =
        'Check the issuer in IDENTITY_PROVIDERS, or set keys_url. The metadata have to be at ' +
        '/.well-known/openid-configuration or /.well-known/oauth-authorization-server, with the same issuer. ' +
        'No token of this provider is accepted.';
      return [...shared, problem('failed', 'metadata', reasonOf(error), advice)];
    }
    shared.push(ok('metadata', 'readable, and of the configured issuer'));
  }
  return [...shared, await checkKeys(provider, keys, deps)];
}

async function checkKeys(provider: IdentityProvider, source: KeySource, deps: KeySetDeps): Promise<Finding> {
  const { name, algorithms } = provider;
  const { ok, problem } = findings(`identity ${name}`);
  try {
    // A set that failed is not fetched again for some seconds, so each attempt needs a set of its own.
    const usable = await twice(() => usableAlgorithms(new KeySet(deps, { name, source }), algorithms));
    if (usable.length > 0) return ok('keys', `readable, for ${usable.join(', ')}`);
  } catch (error) {
    const field = name === DEFAULT_PROVIDER ? 'JWKS_URL' : 'keys_url in IDENTITY_PROVIDERS';
    const advice = `Check ${field}: it must return a JWK set as JSON. No token of this provider is accepted.`;
    return problem('failed', 'keys', reasonOf(error), advice);
  }
  const detail = `no key for the accepted algorithms ${algorithms.join(', ')}`;
  return problem('failed', 'keys', detail, 'Add the algorithm of the keys to algorithms in IDENTITY_PROVIDERS.');
}

/** Returns the algorithms for which the issuer has keys. @throws Error if the set cannot be fetched or has no key */
async function usableAlgorithms(keySet: KeySet, accepted: readonly KeyAlgorithm[]): Promise<KeyAlgorithm[]> {
  const usable: KeyAlgorithm[] = [];
  for (const algorithm of accepted) {
    try {
      await keySet.get(undefined, algorithm);
      usable.push(algorithm);
    } catch (error) {
      if (!(error instanceof TollgateError)) throw error;
      if (!(error.cause instanceof TokenFault)) throw error.cause ?? error;
    }
  }
  return usable;
}
