import { URL } from 'node:url';

/** Path of the console's redirect URI on each origin that serves it. */
const CALLBACK_PATH = '/console/callback';
const CONSOLE_PATH = '/console/';

/** Scopes of the admin API by role of the user. A user without one of the roles has none. */
const ROLE_SCOPES: Readonly<Record<string, readonly string[]>> = {
  admin: ['admin:read', 'admin'],
  viewer: ['admin:read'],
};
const OPENID = 'openid';

export interface ConsoleClientOptions {
  readonly clientId: string;
  /** Complete redirect URIs; if empty, the callback path on any port of this machine. */
  readonly redirectUris: readonly string[];
}

/** The public client `tollgate-console`: its redirect URIs, and the scopes that its users can have. */
export class ConsoleClient {
  readonly id: string;
  readonly #redirectUris: readonly string[];

  constructor({ clientId, redirectUris }: ConsoleClientOptions) {
    this.id = clientId;
    this.#redirectUris = redirectUris;
  }

  /** Origins of the listed redirect URIs: their pages call the token endpoint. */
  get origins(): readonly string[] {
    return [...new Set(this.#redirectUris.map((uri) => new URL(uri).origin))];
  }

  /** The owner of its sessions and refresh tokens, as in `clientKey`. */
  get key(): string {
    return `public:${this.id}`;
  }

  /**
   * Compares whole strings (RFC 9700 section 2.1). Without a list, the port of a loopback address is free (RFC 8252
   * section 7.3): gateways of a development machine and of tests have changing ports.
   */
  allowsRedirect(uri: string): boolean {
    return this.#redirectUris.length > 0 ? this.#redirectUris.includes(uri) : isLoopback(uri, CALLBACK_PATH);
  }

  /** After a sign-out, the browser can return to the console on an origin that has a redirect URI. */
  allowsReturn(uri: string): boolean {
    if (this.#redirectUris.length === 0) return isLoopback(uri, CONSOLE_PATH);
    return this.#redirectUris.some((one) => `${new URL(one).origin}${CONSOLE_PATH}` === uri);
  }

  /** Returns the requested scopes that a user with these roles can have, in a fixed order. */
  grantedScope(requested: string, roles: readonly string[]): string {
    const names = requested.split(' ');
    const allowed = [OPENID, ...new Set(roles.flatMap((role) => ROLE_SCOPES[role] ?? []))];
    return allowed.filter((scope) => names.includes(scope)).join(' ');
  }
}

export function includesOpenId(scope: string): boolean {
  return scope.split(' ').includes(OPENID);
}

function isLoopback(uri: string, path: string): boolean {
  const url = URL.parse(uri);
  if (!url || !['localhost', '127.0.0.1'].includes(url.hostname)) return false;
  return `http://${url.host}${path}` === uri;
}
