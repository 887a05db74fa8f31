import type { Config } from '../../config.ts';
import type { ClaimCondition, ClaimRule } from './claim-mapping.ts';

/** Algorithms of public keys that a provider may use. HS256 needs a secret and is not one of them. */
export const KEY_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
] as const;
export type KeyAlgorithm = (typeof KEY_ALGORITHMS)[number];

/** Fields of an identity that a provider can map. */
export const MAPPED_FIELDS = [
  'user_id',
  'email',
  'plan',
  'permissions',
  'roles',
  'feature_flags',
  'session_id',
  'token_id',
  'tenant',
  'display_name',
] as const;
export type MappedField = (typeof MAPPED_FIELDS)[number];
export type ClaimRules = Readonly<Record<MappedField, ClaimRule>>;

/**
 * The way in which the token of a session is replaced before it expires: workers exchange it (RFC 8693), or the client
 * presents a newer one, or workers use the refresh token that the client handed over (RFC 6749 section 6). `auto`
 * exchanges if the provider's metadata lists the grant, and otherwise uses the refresh token, if there is one.
 */
export const REFRESH_MODES = ['auto', 'exchange', 'refresh_token', 'client'] as const;
export type RefreshMode = (typeof REFRESH_MODES)[number];

/** Whether a refresh token that a client hands over is stored; otherwise it is ignored. */
export function takesRefreshTokens({ refresh, client }: Pick<IdentityProvider, 'refresh' | 'client'>): boolean {
  return client !== undefined && (refresh === 'auto' || refresh === 'refresh_token');
}

/** Location of the public keys: discovered from the metadata of the issuer, or a URL. */
export type KeySource = { readonly discover: string } | { readonly url: string };

/** A client of the provider whose own tokens authenticate a service of Tollgate. */
export interface ServiceRule {
  /** Value of `client_id`, `azp`, `appid` or `cid`, or the subject. */
  readonly client: string;
  readonly serviceId: string;
  /** Scopes that every token of the client has. */
  readonly scopes: readonly string[];
  /** Scopes by a value of `scope`, `scp`, `roles` or `permissions` in the token. */
  readonly scopeMap: ReadonlyMap<string, readonly string[]>;
}

/** The client of Tollgate at a provider, for refreshes and introspection. */
export interface ProviderClient {
  readonly id: string;
  /** Undefined for a public client, which sends only its id. */
  readonly secret: string | undefined;
}

/** An issuer of tokens as configured: whose tokens are accepted, and how they are read. */
export interface IdentityProvider {
  /** Label in logs and metrics. */
  readonly name: string;
  readonly issuer: string;
  /** Accepted audiences; undefined if the keys belong to this deployment alone. */
  readonly audiences: readonly string[] | undefined;
  /** Claims that contain the audience. One of them has to name an accepted one. */
  readonly audienceClaims: readonly string[];
  /** HS256 secrets, the current one first. */
  readonly secrets: readonly string[];
  readonly keys: KeySource | undefined;
  readonly algorithms: readonly KeyAlgorithm[];
  /** Accepted values of the header parameter `typ`; `none` accepts a header without it. */
  readonly acceptedTypes: readonly string[];
  readonly clockSkewSeconds: number;
  readonly claims: ClaimRules;
  /** Conditions on every token of a user. */
  readonly required: readonly ClaimCondition[];
  /** Clients through which users log in; undefined for any. A token of another client is not a user's. */
  readonly userClients: readonly string[] | undefined;
  /** Claim that every user's token has and no client's token. */
  readonly userMark: string | undefined;
  /** Whether a token with the marks of an ID token is accepted: the provider uses ID tokens at APIs. */
  readonly acceptsIdTokens: boolean;
  /** Added to each user id, so that users of different providers are different users. */
  readonly userPrefix: string;
  readonly refresh: RefreshMode;
  readonly client: ProviderClient | undefined;
  readonly services: readonly ServiceRule[];
  /** Whether a subject `service:<id>` is a service without a rule, as in tokens of the reference auth service. */
  readonly namesServices: boolean;
}

export const DEFAULT_CLAIMS: ClaimRules = {
  user_id: { from: ['sub'] },
  email: { from: ['email'] },
  plan: { from: ['plan'] },
  permissions: { from: ['permissions'] },
  roles: { from: ['roles'] },
  feature_flags: { from: ['feature_flags'] },
  session_id: { from: ['sid'] },
  token_id: { from: ['jti'] },
  tenant: { from: [] },
  display_name: { from: [] },
};

/** Tolerated difference between the clocks of issuer and gateway, by default. */
export const CLOCK_SKEW_SECONDS = 5;

/** The provider that the variables `JWT_*` and `JWKS_URL` describe. */
export interface ShortForm {
  readonly issuer: string;
  readonly audience: string;
  readonly secrets: readonly string[];
  readonly jwksUrl: string | undefined;
  readonly acceptedTypes: readonly string[];
}

/** Name of the provider of the short form. */
export const DEFAULT_PROVIDER = 'default';

export function defaultProvider(form: ShortForm): IdentityProvider {
  return {
    name: DEFAULT_PROVIDER,
    issuer: form.issuer,
    audiences: [form.audience],
    audienceClaims: ['aud'],
    secrets: form.secrets,
    keys: form.jwksUrl === undefined ? undefined : { url: form.jwksUrl },
    algorithms: ['RS256', 'ES256'],
    acceptedTypes: form.acceptedTypes,
    clockSkewSeconds: CLOCK_SKEW_SECONDS,
    claims: DEFAULT_CLAIMS,
    required: [],
    userClients: undefined,
    userMark: undefined,
    acceptsIdTokens: false,
    userPrefix: '',
    refresh: 'auto',
    client: undefined,
    services: [],
    namesServices: true,
  };
}

/** Returns the short form of the configuration. */
export function shortFormOf(config: Config): ShortForm {
  return {
    issuer: config.JWT_ISSUER,
    audience: config.JWT_AUDIENCE,
    secrets: [config.JWT_SECRET_KEY, config.JWT_SECRET_KEY_PREVIOUS].filter((secret) => secret !== undefined),
    jwksUrl: config.JWKS_URL,
    acceptedTypes: config.JWT_ACCEPTED_TYPES,
  };
}
