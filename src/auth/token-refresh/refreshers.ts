import { jsonObject } from '../../lib/jws.ts';
import { AuthServiceClient, type AuthServiceDeps, type IssuedToken } from '../client/auth-service-client.ts';
import type { IdentityProvider } from '../providers/identity-provider.ts';

/** What a refresh needs of the client of a provider. */
export type ExchangeClient = Pick<AuthServiceClient, 'exchange' | 'canExchange'>;

interface Refresher {
  readonly mode: IdentityProvider['refresh'];
  readonly client: ExchangeClient;
}

/**
 * Refreshes tokens at the provider that issued them. A token is sent to its issuer only: the exchange would hand the
 * token of a user to another party.
 */
export class Refreshers {
  readonly #own: ExchangeClient;
  /** Providers of the file by issuer. Undefined for a provider whose clients present newer tokens themselves. */
  readonly #listed = new Map<string, Refresher | undefined>();
  readonly #clients: AuthServiceClient[] = [];

  /** @param own client of the auth service, for all tokens that no provider of the file has issued */
  constructor(deps: AuthServiceDeps & { readonly own: ExchangeClient }, providers: readonly IdentityProvider[]) {
    this.#own = deps.own;
    for (const { issuer, refresh: mode, client } of providers) {
      if (mode === 'client' || client?.secret === undefined) {
        this.#listed.set(issuer, undefined);
        continue;
      }
      const options = { url: issuer, issuer, serviceSecret: client.secret, clientId: client.id, isProvider: true };
      const created = new AuthServiceClient(deps, options);
      this.#clients.push(created);
      this.#listed.set(issuer, { mode, client: created });
    }
  }

  /**
   * Returns the next token of a session; undefined if only its client can present one.
   * @throws TollgateError as `AuthServiceClient.exchange`
   */
  async refresh(token: string): Promise<IssuedToken | undefined> {
    const issuer = issuerOf(token);
    if (issuer === undefined || !this.#listed.has(issuer)) return this.#own.exchange(token);
    const refresher = this.#listed.get(issuer);
    if (!refresher) return undefined;
    if (refresher.mode === 'auto' && !(await refresher.client.canExchange())) return undefined;
    return refresher.client.exchange(token);
  }

  /** Closes the clients that this object has created. */
  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
  }
}

/** Returns the issuer of a verified JWT; undefined for an opaque token. */
function issuerOf(token: string): string | undefined {
  const [, payload = '', signature] = token.split('.');
  const issuer = signature === undefined ? undefined : jsonObject(payload)?.iss;
  return typeof issuer === 'string' ? issuer : undefined;
}
