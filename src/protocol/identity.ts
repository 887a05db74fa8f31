/** Who a connection or a run acts for. Made by the authenticator, carried as data; nothing here is looked up again. */
export interface Identity {
  readonly userId: string;
  readonly email: string | undefined;
  readonly plan: string;
  /** What the token itself grants; the plan's permissions are added by the policy. */
  readonly permissions: readonly string[];
  readonly roles: readonly string[];
  readonly featureFlags: Readonly<Record<string, boolean>>;
  /** The login session (claim `sid`), and the token's own id (claim `jti`). */
  readonly sessionId: string | undefined;
  readonly tokenId: string;
  /** Milliseconds since the epoch. */
  readonly tokenIssuedAt: number;
  readonly tokenExpiresAt: number;
  /** The token itself, which only Tollgate's own processes can read (auth/token-refresh/token-seal.ts); undefined where none can be refreshed. */
  readonly sealedToken?: string | undefined;
  readonly method: AuthMethod;
}

export const AUTH_METHODS = [
  'header',
  'subprotocol',
  'handshake',
  'message',
  'service',
  'ticket',
  'development_bypass',
] as const;
export type AuthMethod = (typeof AUTH_METHODS)[number];
