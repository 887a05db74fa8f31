import type { JsonObject } from '../lib/jws.ts';

/**
 * Rules that decide which kinds of token are accepted. Issuers sign ID tokens, logout tokens, security events and the
 * tokens of clients with the same keys as users' access tokens. Signature, issuer and times therefore do not identify
 * the kind (RFC 8725 section 2.8, cross-JWT confusion). The rules apply to JWTs and to introspection responses.
 *
 * Each function returns the reason for a rejection, for logs only, or undefined. None of them checks a signature.
 */

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
export function headerFault(header: JsonObject, types: TokenTypes): string | undefined {
  const parameter = REFUSED_PARAMETERS.find((name) => name in header);
  if (parameter !== undefined) return `the header parameter ${parameter}`;
  const { typ } = header;
  if (typ === undefined) return types.untyped ? undefined : 'no type';
  return typeof typ === 'string' && types.names.has(typeName(typ)) ? undefined : 'a type that is not accepted';
}

/**
 * Checks the claims of a token that is presented as a plain bearer token.
 * @param header undefined for an introspection response
 */
export function bearerFault(claims: JsonObject, header?: JsonObject): string | undefined {
  // RFC 7800 section 3.1: the token is bound to a key (`jkt`: RFC 9449 section 6, `x5t#S256`: RFC 8705 section 3). A
  // bearer does not prove possession of that key. RFC 9449 section 7.2 forbids accepting such a token as a bearer
  // token.
  if (claims.cnf !== undefined) return 'bound to a key';
  if (claims.token_type !== undefined && !isOneOf(BEARER_TYPES, claims.token_type))
    return 'a token_type of another kind';
  if (isOneOf(OTHER_KEYCLOAK_TYPES, claims.typ)) return 'a typ claim of another kind';
  // RFC 8417 section 2.2. A logout token is a security event too (OpenID Connect Back-Channel Logout section 2.4).
  if (isObject(claims.events)) return 'a security event';
  return isIdToken(claims, header) ? 'an ID token' : undefined;
}

/**
 * Checks that the claims describe a user. A token that a client obtained for itself has no user (RFC 9068 sections 2.2
 * and 5). If an issuer gives a client its own subject without any mark, its token is indistinguishable from a user's.
 */
export function userFault(claims: JsonObject): string | undefined {
  const { sub, gty, idtyp, preferred_username: username } = claims;
  const clients = CLIENT_CLAIMS.map((name) => claims[name]).filter((id) => typeof id === 'string');
  // Auth0 appends a suffix to the client's id.
  if (clients.some((id) => sub === id || sub === `${id}@clients`)) return 'of a client';
  if (gty === 'client-credentials' || idtyp === 'app') return 'of a client';
  // Keycloak's service accounts have the client's id in lower case with a prefix.
  if (clients.some((id) => username === `service-account-${id.toLowerCase()}`)) return 'of a client';
  return undefined;
}

/**
 * Whether the token is an ID token as described in OpenID Connect Core sections 2 and 3.3.2.11. The claims alone do
 * not prove it: Keycloak before 25 copies `nonce` to access tokens, and other issuers start from the claims of the ID
 * token. A token that is marked as an access token therefore counts as one, and so does a token with `nonce` and
 * `scope`, because ID tokens have no `scope`.
 */
function isIdToken(claims: JsonObject, header: JsonObject | undefined): boolean {
  const typ = typeof header?.typ === 'string' ? typeName(header.typ) : undefined;
  if (typ === ACCESS_TOKEN_TYPE || claims.token_use === 'access' || claims.typ === 'Bearer') return false;
  if (claims.at_hash !== undefined || claims.c_hash !== undefined) return true;
  return claims.nonce !== undefined && claims.scope === undefined && claims.scp === undefined;
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

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
