import * as oauth from 'oauth4webapi';
import type { ConsoleConfig } from './config.ts';

/** What the console keeps of a token response, in memory only. */
export interface TokenSet {
  readonly accessToken: string;
  readonly refreshToken: string | undefined;
  readonly idToken: string | undefined;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly scopes: readonly string[];
}

/** What is needed to renew a session. */
export interface Renewable extends Pick<TokenSet, 'idToken' | 'scopes'> {
  readonly refreshToken: string;
}

/** The part of a sign-in that has to survive the redirect. It contains no token and is removed when it is read. */
interface Transaction {
  readonly state: string;
  readonly verifier: string;
  readonly nonce: string;
  /** Fragment of the page from which the operator signed in. */
  readonly returnTo: string;
}

const TRANSACTION_KEY = 'tollgate.sign-in';
/** Used if a token response names no lifetime. */
const DEFAULT_LIFETIME_SECONDS = 60;
const REQUEST_MS = 15_000;

/** With a plain connection to the issuer the signature adds nothing: OpenID Connect Core section 3.1.3.7, item 6. */
const ID_TOKEN_ALGORITHMS = ['ES256', 'ES384', 'RS256', 'PS256', 'EdDSA', 'Ed25519'];

/** The authorization code flow with PKCE (RFC 7636) of a public client. */
export class OAuthClient {
  readonly #config: ConsoleConfig;
  readonly #client: oauth.Client;
  readonly #server: oauth.AuthorizationServer;
  readonly #redirectUri: string;

  constructor(config: ConsoleConfig) {
    const { authorization, token, revocation, end_session } = config.endpoints;
    this.#config = config;
    this.#client = { client_id: config.client_id };
    this.#server = {
      issuer: config.issuer,
      authorization_endpoint: authorization ?? undefined,
      token_endpoint: token ?? undefined,
      revocation_endpoint: revocation ?? undefined,
      end_session_endpoint: end_session ?? undefined,
      id_token_signing_alg_values_supported: ID_TOKEN_ALGORITHMS,
    };
    this.#redirectUri = new URL(config.redirect_path, location.origin).href;
  }

  /**
   * Leaves the page for the authorization endpoint.
   * @param options.silent `prompt=none`: the issuer returns at once, with an error if it has no session
   */
  async redirect({ silent }: { readonly silent: boolean }): Promise<void> {
    const { authorization_endpoint } = this.#server;
    if (!authorization_endpoint) throw new Error('The gateway cannot reach the issuer. Load this page again later.');
    const verifier = oauth.generateRandomCodeVerifier();
    const transaction: Transaction = {
      state: oauth.generateRandomState(),
      nonce: oauth.generateRandomNonce(),
      verifier,
      returnTo: location.hash,
    };
    sessionStorage.setItem(TRANSACTION_KEY, JSON.stringify(transaction));
    const target = new URL(authorization_endpoint);
    const parameters = {
      response_type: 'code',
      client_id: this.#config.client_id,
      redirect_uri: this.#redirectUri,
      scope: this.#config.scope,
      state: transaction.state,
      nonce: transaction.nonce,
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      ...(silent && { prompt: 'none' }),
    };
    for (const [name, value] of Object.entries(parameters)) target.searchParams.set(name, value);
    location.assign(target);
  }

  /**
   * Exchanges the code of an authorization response, and removes the response from the address.
   * @returns undefined if the address contains no response to a request of this tab
   * @throws oauth.AuthorizationResponseError if the issuer refused, for example with `login_required`
   */
  async finish(): Promise<TokenSet | undefined> {
    const address = new URL(location.href);
    const stored = sessionStorage.getItem(TRANSACTION_KEY);
    sessionStorage.removeItem(TRANSACTION_KEY);
    if (!address.searchParams.has('state')) return undefined;
    const transaction = stored === null ? undefined : (JSON.parse(stored) as Transaction);
    replaceAddress(`${this.#config.post_logout_path}${transaction?.returnTo ?? ''}`);
    if (!transaction) return undefined;
    const parameters = oauth.validateAuthResponse(this.#server, this.#client, address, transaction.state);
    const response = await oauth.authorizationCodeGrantRequest(
      this.#server,
      this.#client,
      oauth.None(),
      parameters,
      this.#redirectUri,
      transaction.verifier,
      options(),
    );
    // An OAuth server without OpenID Connect returns no ID token, and so no nonce.
    const body: unknown = await response
      .clone()
      .json()
      .catch(() => null);
    const hasIdToken = typeof body === 'object' && body !== null && 'id_token' in body;
    const expectedNonce = hasIdToken ? { expectedNonce: transaction.nonce } : {};
    const answer = await oauth.processAuthorizationCodeResponse(this.#server, this.#client, response, expectedNonce);
    return this.#tokens(answer, undefined);
  }

  /** @throws oauth.ResponseBodyError if the session has ended */
  async refresh(before: Renewable): Promise<TokenSet> {
    const response = await oauth.refreshTokenGrantRequest(
      this.#server,
      this.#client,
      oauth.None(),
      before.refreshToken,
      options(),
    );
    return this.#tokens(await oauth.processRefreshTokenResponse(this.#server, this.#client, response), before);
  }

  /** Revokes the session's tokens, and ends the session at the issuer where it has an endpoint for that. */
  async signOut({ refreshToken, accessToken, idToken }: TokenSet): Promise<void> {
    const { revocation_endpoint, end_session_endpoint } = this.#server;
    if (revocation_endpoint) {
      const token = refreshToken ?? accessToken;
      await oauth.revocationRequest(this.#server, this.#client, oauth.None(), token, options());
    }
    if (!end_session_endpoint) return location.reload();
    const target = new URL(end_session_endpoint);
    target.searchParams.set('client_id', this.#config.client_id);
    target.searchParams.set('post_logout_redirect_uri', new URL(this.#config.post_logout_path, location.origin).href);
    // OpenID Connect RP-Initiated Logout asks for it in the address. It authenticates no request.
    if (idToken) target.searchParams.set('id_token_hint', idToken);
    location.assign(target);
  }

  #tokens(response: oauth.TokenEndpointResponse, before: Renewable | undefined): TokenSet {
    const scope = response.scope ?? before?.scopes.join(' ') ?? this.#config.scope;
    return {
      accessToken: response.access_token,
      refreshToken: response.refresh_token ?? before?.refreshToken,
      idToken: response.id_token ?? before?.idToken,
      expiresAt: Date.now() + (response.expires_in ?? DEFAULT_LIFETIME_SECONDS) * 1_000,
      scopes: scope.split(' ').filter(Boolean),
    };
  }
}

/** A page that was itself loaded over HTTP, in development, may use an issuer without TLS. */
function options(): { [oauth.allowInsecureRequests]: boolean; signal: AbortSignal } {
  return { [oauth.allowInsecureRequests]: location.protocol === 'http:', signal: AbortSignal.timeout(REQUEST_MS) };
}

function replaceAddress(address: string): void {
  history.replaceState(null, '', address);
  dispatchEvent(new HashChangeEvent('hashchange'));
}

/** The error code of an issuer's refusal, such as `login_required` or `invalid_grant`. */
export function issuerError(error: unknown): string | undefined {
  if (error instanceof oauth.AuthorizationResponseError || error instanceof oauth.ResponseBodyError) return error.error;
  return undefined;
}
