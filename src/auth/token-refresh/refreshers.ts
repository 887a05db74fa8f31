import { jsonObject } from '../../lib/jws.ts';
import {
  AuthServiceClient,
  type AuthServiceDeps,
  type Delivery,
  type IssuedToken,
  isRefusal,
} from '../client/auth-service-client.ts';
import type { IdentityProvider } from '../providers/identity-provider.ts';

/** What a refresh needs of the client of a provider. */
export type ExchangeClient = Pick<AuthServiceClient, 'exchange' | 'canExchange'>;

/** A refresh token that a client handed over. */
export interface HeldRefreshToken {
  /** Returns it for one request; undefined if it must not be sent. */
  take(): Promise<string | undefined>;
  /** Called with a taken token on which the provider has certainly not acted. */
  restore(token: string): Promise<void>;
}

interface Refresher {
  readonly mode: IdentityProvider['refresh'];
  /** Whether the client has a secret, without which no provider exchanges tokens. */
  readonly isConfidential: boolean;
  readonly client: AuthServiceClient;
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
      const isConfidential = client?.secret !== undefined;
      if (!client || mode === 'client' || (mode === 'exchange' && !isConfidential)) {
        this.#listed.set(issuer, undefined);
        continue;
      }
      const options = { url: issuer, issuer, serviceSecret: client.secret, clientId: client.id, isProvider: true };
      const created = new AuthServiceClient(deps, options);
      this.#clients.push(created);
      this.#listed.set(issuer, { mode, isConfidential, client: created });
    }
  }

  /**
   * Returns the next token of a session; undefined if only its client can present one. The result of a refresh token
   * always has the next refresh token, which is the same one if the provider does not rotate it.
   * @param held refresh token of the session, if it has one
   * @throws TollgateError as `AuthServiceClient.exchange`; for a refresh token that is not restored, the provider may
   *   have acted on it
   */
  async refresh(token: string, held?: HeldRefreshToken): Promise<IssuedToken | undefined> {
    const issuer = issuerOf(token);
    if (issuer === undefined || !this.#listed.has(issuer)) return this.#own.exchange(token);
    const refresher = this.#listed.get(issuer);
    if (!refresher) return undefined;
    if (await exchanges(refresher)) {
      // A refresh token in the answer belongs to the exchange and not to the client.
      const { accessToken, expiresAt } = await refresher.client.exchange(token);
      return { accessToken, expiresAt };
    }
    return held && spend(refresher.client, held);
  }

  /** Closes the clients that this object has created. */
  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
  }
}

async function exchanges({ mode, isConfidential, client }: Refresher): Promise<boolean> {
  return mode === 'exchange' || (mode === 'auto' && isConfidential && (await client.canExchange()));
}

async function spend(client: AuthServiceClient, held: HeldRefreshToken): Promise<IssuedToken | undefined> {
  const refreshToken = await held.take();
  if (refreshToken === undefined) return undefined;
  const delivery: Delivery = { mayHaveActed: false };
  try {
    return { refreshToken, ...(await client.refresh(refreshToken, undefined, delivery)) };
  } catch (error) {
    if (!delivery.mayHaveActed && !isRefusal(error)) await held.restore(refreshToken);
    throw error;
  }
}

/** Returns the issuer of a verified JWT; undefined for an opaque token. */
function issuerOf(token: string): string | undefined {
  const [, payload = '', signature] = token.split('.');
  const issuer = signature === undefined ? undefined : jsonObject(payload)?.iss;
  return typeof issuer === 'string' ? issuer : undefined;
}
