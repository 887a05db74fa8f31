import { defaultProvider, type IdentityProvider, shortFormOf } from '../auth/providers/identity-provider.ts';
import { readProviders } from '../auth/providers/provider-file.ts';
import type { Config } from '../config.ts';

/**
 * Returns the identity providers of a process: that of the variables `JWT_*`, if it has keys or is introspected, and
 * those of the file `IDENTITY_PROVIDERS`. A provider of the file with the same issuer replaces the first.
 * @returns `own` is the provider whose tokens the auth service introspects, `listed` those of the file
 * @throws CatalogueError with every mistake of the file
 */
export function composeProviders(config: Config): {
  readonly own: IdentityProvider;
  readonly providers: readonly IdentityProvider[];
  readonly listed: readonly IdentityProvider[];
} {
  const context = { variable: config.variable, production: config.ENVIRONMENT === 'production' };
  const listed = readProviders(config.IDENTITY_PROVIDERS, context);
  const replaced = listed.find(({ issuer }) => issuer === config.JWT_ISSUER);
  const own = replaced ?? defaultProvider(shortFormOf(config));
  const hasKeys = own.secrets.length > 0 || own.keys !== undefined;
  return { own, listed, providers: replaced || !hasKeys ? listed : [own, ...listed] };
}
