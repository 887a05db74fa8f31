import type { JsonObject } from '../lib/jws.ts';

/**
 * Which kinds of token are accepted. Issuers sign ID tokens, logout tokens, security events and clients' own tokens with
 * the same keys as users' access tokens, so that signature, issuer and times say nothing about the kind (RFC 8725
 * section 2.8, cross-JWT confusion). The rules serve JWTs and the answers of introspection alike.
 *
 * Each function returns the reason for a refusal, for logs only, or undefined. None of them checks a signature.
 */

/** The header types that are accepted. */
export interface TokenTypes {
  readonly names: ReadonlySet<string>;
  /** Whether a header without `typ` is accepted. */
  readonly untyped: boolean;
}

/** The entry of `JWT_ACCEPTED_TYPES` for a header without `typ`. */
const UNTYPED = 'none';
const ACCESS_TOKEN_TYPE = 'at+jwt';
const APPLICATION = 'application/';

/** Values of `token_type` of a token that is presented as it is: RFC 6749 section 7.1, and what JWT libraries write. */
const BEARER_TYPES = ['bearer', 'access_token', 'access'];
/** Values of the claim `typ` with which Keycloak marks what is not a bearer's access token (that is `Bearer`). */
const OTHER_KEYCLOAK_TYPES = ['id', 'refresh', 'offline', 'logout', 'dpop'];
/** Header parameters that change what is signed (RFC 7797, RFC 7516 section 4.1.3) or must be understood. */
const REFUSED_PARAMETERS = ['crit', 'b64', 'zip', 'enc'];
/** The client of a token: RFC 9068 section 2.2 and OpenID Connect Core section 2; Entra v1; Okta. */
const CLIENT_CLAIMS = ['client_id', 'azp', 'appid', 'cid'];

/** @param accepted media types with or without `application/`, and `none` */
export function tokenTypes(accepted: readonly string[]): TokenTypes {
  return {
    names: new Set(accepted.filter((type) => type !== UNTYPED).map(typeName)),
    untyped: accepted.includes(UNTYPED),
  };
}

/**
 * What is wrong with the header of any token, a service's included. RFC 8725 section 3.11 and RFC 9068 section 4 (`typ`),
 * RFC 7515 section 4.1.11 (`crit`). Parameters that name a key (`jku`, `jwk`, `x5u`, `x5c`) are allowed and never used.
 */
export function headerFault(header: JsonObject, types: TokenTypes): string | undefined {
  const parameter = REFUSED_PARAMETERS.find((name) => name in header);
  if (parameter !== undefined) return `the header parameter ${parameter}`;
  const { typ } = header;
  if (typ === undefined) return types.untyped ? undefined : 'no type';
  return typeof typ === 'string' && types.names.has(typeName(typ)) ? undefined : 'a type that is not accepted';
}

/**
 * What is wrong with the claims of any token that is presented as a plain bearer.
 * @param header undefined for an answer of introspection
 */
export function bearerFault(claims: JsonObject, header?: JsonObject): string | undefined {
  // RFC 7800 section 3.1: bound to a key (`jkt`: RFC 9449 section 6, `x5t#S256`: RFC 8705 section 3), of which a bearer
  // proves nothing. RFC 9449 section 7.2: it must not be accepted as a bearer token.
  if (claims.cnf !== undefined) return 'bound to a key';
  if (claims.token_type !== undefined && !isOneOf(BEARER_TYPES, claims.token_type))
    return 'a token_type of another kind';
  if (isOneOf(OTHER_KEYCLOAK_TYPES, claims.typ)) return 'a typ claim of another kind';
  // RFC 8417 section 2.2; a logout token is one of them (OpenID Connect Back-Channel Logout section 2.4).
  if (isObject(claims.events)) return 'a security event';
  return isIdToken(claims, header) ? 'an ID token' : undefined;
}

/**
 * What is wrong with the claims of a user's token: one that a client got for itself has no user (RFC 9068 sections 2.2
 * and 5). Issuers that give a client's account a subject of its own and mark it by nothing cannot be told from users.
 */
export function userFault(claims: JsonObject): string | undefined {
  const { sub, gty, idtyp, preferred_username: username } = claims;
  const clients = CLIENT_CLAIMS.map((name) => claims[name]).filter((id) => typeof id === 'string');
  // The form of Auth0 is the client's id with a suffix.
  if (clients.some((id) => sub === id || sub === `${id}@clients`)) return 'of a client';
  if (gty === 'client-credentials' || idtyp === 'app') return 'of a client';
  // Keycloak's service accounts: the client's id, in lower case, with a prefix.
  if (clients.some((id) => username === `service-account-${id.toLowerCase()}`)) return 'of a client';
  return undefined;
}

/**
 * Whether OpenID Connect Core sections 2 and 3.3.2.11 describe the token. Its claims alone are no proof: Keycloak before 25
 * copies `nonce` to access tokens, and others begin with the claims of the ID token. So a token that calls itself an
 * access token is one; `scope`, which ID tokens do not have, is enough for `nonce`.
 */
function isIdToken(claims: JsonObject, header: JsonObject | undefined): boolean {
  const typ = typeof header?.typ === 'string' ? typeName(header.typ) : undefined;
  if (typ === ACCESS_TOKEN_TYPE || claims.token_use === 'access' || claims.typ === 'Bearer') return false;
  if (claims.at_hash !== undefined || claims.c_hash !== undefined) return true;
  return claims.nonce !== undefined && claims.scope === undefined && claims.scp === undefined;
}

/** RFC 7515 section 4.1.9: `application/` may be left out where no other slash follows. Case does not matter. */
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
