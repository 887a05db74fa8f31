import { isObject } from '../lib/json.ts';
import type { JsonObject } from '../lib/jws.ts';

/**
 * Rules that decide which kinds of token are accepted. Issuers sign ID tokens, logout tokens, security events and the
 * tokens of clients with the same keys as users' access tokens. Signature, issuer and times therefore do not identify
 * the kind (RFC 8725 section 2.8, cross-JWT confusion). The rules apply to JWTs and to introspection responses.
 *
 * Each function returns the reason for a rejection, for logs only, or undefined. None of them checks a signature.
 * Members that are null have been removed from the claims.
 */

/** Reason for a rejection: the claim that decides, and why. It contains no value of a claim. */
export interface TokenKindFault {
  readonly claim: string;
  readonly reason: string;
}

/** What the rules need to know about the issuer. */
export interface TokenKinds {
  /** Whether ID tokens are access tokens of this issuer: Google, Firebase and Dex have no others that are JWTs. */
  readonly acceptsIdTokens?: boolean;
  /** Clients through which users log in; undefined for any. */
  readonly userClients?: readonly string[] | undefined;
  /** Claim that every user's token has and no client's token: `scp` of Entra ID. */
  readonly userMark?: string | undefined;
}

/** Accepted values of the header parameter `typ`. */
export interface TokenTypes {
  readonly names: ReadonlySet<string>;
  /** Whether a header without `typ` is accepted. */
  readonly untyped: boolean;
}

/** The entry of `JWT_ACCEPTED_TYPES` for a header without `typ`. */
const UNTYPED = 'none';
const ACCESS_TOKEN_TYPE = 'at+jwt';
const APPLICATION = 'application/';

/** Values of `token_type` of a bearer token: those of RFC 6749 section 7.1 and those that JWT libraries write. */
const BEARER_TYPES = ['bearer', 'access_token', 'access'];
/** Values of the claim `typ` that Keycloak gives to tokens other than bearer access tokens, which have `Bearer`. */
const OTHER_KEYCLOAK_TYPES = ['id', 'refresh', 'offline', 'logout', 'dpop'];
/** Header parameters that change the signed content (RFC 7797, RFC 7516 section 4.1.3) or that must be understood. */
const REFUSED_PARAMETERS = ['crit', 'b64', 'zip', 'enc'];
/** Claims that contain a token's client: RFC 9068 section 2.2 and OpenID Connect Core section 2; Entra v1; Okta. */
const CLIENT_CLAIMS = ['client_id', 'azp', 'appid', 'cid'];
/** Values of `token_use` of users' access tokens: Cognito and the reference auth service; Hydra. */
const USER_TOKEN_USES: readonly unknown[] = ['access', 'access_token'];
const CLIENTS_TOKEN = 'a token of a client';

/** @param accepted media types with or without `application/`, and `none` */
export function tokenTypes(accepted: readonly string[]): TokenTypes {
  return {
    names: new Set(accepted.filter((type) => type !== UNTYPED).map(typeName)),
    untyped: accepted.includes(UNTYPED),
  };
}

/**
 * Checks the header of a user's or a service's token: RFC 8725 section 3.11 and RFC 9068 section 4 (`typ`), RFC 7515
 * section 4.1.11 (`crit`). Parameters that name a key (`jku`, `jwk`, `x5u`, `x5c`) are allowed and never used.
 */
export function headerFault(header: JsonObject, types: TokenTypes): TokenKindFault | undefined {
  const parameter = REFUSED_PARAMETERS.find((name) => name in header);
  if (parameter !== undefined) return fault(`header ${parameter}`, 'a parameter that is not supported');
  const { typ } = header;
  if (typ === undefined) return types.untyped ? undefined : fault('header typ', 'the parameter is missing');
  if (typeof typ === 'string' && types.names.has(typeName(typ))) return undefined;
  return fault('header typ', 'a type that is not accepted');
}

/**
 * Checks the claims of a token that is presented as a plain bearer token.
 * @param header undefined for an introspection response
 */
export function bearerFault(
  claims: JsonObject,
  header?: JsonObject,
  { acceptsIdTokens = false }: TokenKinds = {},
): TokenKindFault | undefined {
  // RFC 7800 section 3.1: the token is bound to a key (`jkt`: RFC 9449 section 6, `x5t#S256`: RFC 8705 section 3). A
  // bearer does not prove possession of that key. RFC 9449 section 7.2 forbids accepting such a token as a bearer
  // token.
  if (claims.cnf !== undefined) return fault('cnf', 'bound to a key');
  if (claims.token_type !== undefined && !isOneOf(BEARER_TYPES, claims.token_type))
    return fault('token_type', 'a token of another kind');
  if (isOneOf(OTHER_KEYCLOAK_TYPES, claims.typ)) return fault('typ', 'a token of another kind');
  // RFC 8417 section 2.2. A logout token is a security event too (OpenID Connect Back-Channel Logout section 2.4).
  if (isObject(claims.events)) return fault('events', 'a security event');
  const mark = acceptsIdTokens ? undefined : idTokenMark(claims, header);
  return mark === undefined ? undefined : fault(mark, 'an ID token');
}

/**
 * Checks that the claims describe a user. A token that a client obtained for itself has no user (RFC 9068 sections 2.2
 * and 5). If an issuer gives a client its own subject without any mark (Zitadel, authentik), its token differs from a
 * user's only in the client that it names, so `userClients` has to list those through which users log in.
 */
export function userFault(claims: JsonObject, { userClients, userMark }: TokenKinds = {}): TokenKindFault | undefined {
  const { sub, gty, idtyp, preferred_username: username, token_use: use } = claims;
  if (use !== undefined && !USER_TOKEN_USES.includes(use)) return fault('token_use', 'a token of another kind');
  const clients = clientsOf(claims);
  // Auth0 appends a suffix to the client's id.
  if (clients.some((id) => sub === id || sub === `${id}@clients`)) return fault('sub', CLIENTS_TOKEN);
  if (gty === 'client-credentials') return fault('gty', CLIENTS_TOKEN);
  if (idtyp === 'app') return fault('idtyp', CLIENTS_TOKEN);
  // Keycloak's service accounts have the client's id in lower case with a prefix.
  if (clients.some((id) => username === `service-account-${id.toLowerCase()}`)) {
    return fault('preferred_username', CLIENTS_TOKEN);
  }
  if (userMark !== undefined && claims[userMark] === undefined) return fault(userMark, CLIENTS_TOKEN);
  if (userClients === undefined || clients.some((id) => userClients.includes(id))) return undefined;
  return fault(CLIENT_CLAIMS.join(' or '), 'a client through which no users log in');
}

/** Returns the clients that a token names. */
export function clientsOf(claims: JsonObject): readonly string[] {
  return CLIENT_CLAIMS.map((name) => claims[name]).filter((id): id is string => typeof id === 'string');
}

/**
 * Returns the claim that marks an ID token as described in OpenID Connect Core sections 2 and 3.3.2.11. The claims
 * alone do not prove it: Keycloak before 25 copies `nonce` to access tokens, and other issuers start from the claims of
 * the ID token. A token that is marked as an access token therefore is none, and neither is a token with `nonce` and
 * `scope`, because ID tokens have no `scope`.
 */
function idTokenMark(claims: JsonObject, header: JsonObject | undefined): string | undefined {
  const typ = typeof header?.typ === 'string' ? typeName(header.typ) : undefined;
  const isMarked = typ === ACCESS_TOKEN_TYPE || USER_TOKEN_USES.includes(claims.token_use) || claims.typ === 'Bearer';
  if (isMarked) return undefined;
  const hash = ['at_hash', 'c_hash'].find((name) => claims[name] !== undefined);
  if (hash !== undefined) return hash;
  return claims.nonce !== undefined && claims.scope === undefined && claims.scp === undefined ? 'nonce' : undefined;
}

/**
 * Normalises a type. RFC 7515 section 4.1.9: `application/` may be omitted if no other slash follows; case is
 * ignored.
 */
function typeName(type: string): string {
  const lower = type.toLowerCase();
  const short = lower.startsWith(APPLICATION) ? lower.slice(APPLICATION.length) : lower;
  return short.includes('/') ? lower : short;
}

function isOneOf(names: readonly string[], value: unknown): boolean {
  return typeof value === 'string' && names.includes(value.toLowerCase());
}

function fault(claim: string, reason: string): TokenKindFault {
  return { claim, reason };
}
