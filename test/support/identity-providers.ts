import { defaultProvider, type IdentityProvider, type ShortForm } from '../../src/auth/providers/identity-provider.ts';

/** Returns the provider of the short form, for the audience `tollgate`, with these changes. */
export function providerOf(changes: Partial<ShortForm> = {}): IdentityProvider {
  return defaultProvider({
    issuer: 'https://issuer.test',
    audience: 'tollgate',
    secrets: [],
    jwksUrl: undefined,
    acceptedTypes: ['at+jwt', 'JWT', 'none'],
    ...changes,
  });
}
