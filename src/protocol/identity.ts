/** User of a connection or a run. The authenticator creates it; afterwards it is passed on as data. */
export interface Identity {
  readonly userId: string;
  readonly email: string | undefined;
  readonly plan: string;
  /** Permissions of the token itself; `Permissions` (catalogue/permissions.ts) adds those of the plan. */
  readonly permissions: readonly string[];
  readonly roles: readonly string[];
  readonly featureFlags: Readonly<Record<string, boolean>>;
  /** Login session (claim `sid`). */
  readonly sessionId: string | undefined;
  /** Id of the token (claim `jti`). */
  readonly tokenId: string;
  /** Milliseconds since the epoch. */
  readonly tokenIssuedAt: number;
  readonly tokenExpiresAt: number;
  /** Token encrypted by auth/token-refresh/token-seal.ts; undefined if it cannot be refreshed. */
  readonly sealedToken?: string | undefined;
  /** Refresh token that the client handed over with the token; only until it is stored with the session. */
  readonly handedOver?: HandedOverToken | undefined;
  /** Name of the identity provider that issued the token; undefined for services, and in development. */
  readonly provider?: string | undefined;
  readonly tenant?: string | undefined;
  readonly displayName?: string | undefined;
  readonly method: AuthMethod;
  /** Only for the agent of a run: what its token allows. */
  readonly run?: RunScope;
}

/** The run for which an agent on another server calls tools. */
export interface RunScope {
  readonly runId: string;
  readonly threadId: string;
  readonly requestId: string;
  readonly agent: string;
  readonly degraded: boolean;
  /** Tools of the agent. The permissions of the user are checked in addition. */
  readonly tools: readonly string[];
}

/** A refresh token (RFC 6749 section 1.5) encrypted by auth/token-refresh/token-seal.ts for one login session. */
export interface HandedOverToken {
  readonly sealed: string;
  /** Base64url SHA-256, which identifies the token without revealing it. */
  readonly digest: string;
}

export const AUTH_METHODS = [
  'header',
  'subprotocol',
  'handshake',
  'message',
  'service',
  'ticket',
  'run',
  'development_bypass',
] as const;
export type AuthMethod = (typeof AUTH_METHODS)[number];
