import type { JsonObject } from '../lib/jws.ts';
import { clientsOf, userFault } from './access-token-rules.ts';
import { idOf, readClaims, readTimes } from './claims.ts';
import { SERVICE_PREFIX } from './credentials.ts';
import { claimAt, textsOf } from './providers/claim-mapping.ts';
import type { IdentityProvider, ServiceRule } from './providers/identity-provider.ts';
import { refusedClaim } from './token-fault.ts';

/** A service or an operator, and the scopes of the token. */
export interface ServiceIdentity {
  /** Id of the service; `user:<user id>` for an operator, which no service can have. */
  readonly serviceId: string;
  readonly scopes: readonly string[];
  readonly tokenId: string;
  /** Milliseconds since the epoch. */
  readonly tokenIssuedAt: number;
  readonly tokenExpiresAt: number;
  /** The user behind an operator's token; undefined for a service. */
  readonly operator?: Operator;
}

export interface Operator {
  readonly userId: string;
  readonly sessionId: string | undefined;
  readonly provider: string | undefined;
}

/** The client of an issuer whose users are operators if their tokens have the scopes for it. */
export interface OperatorClient {
  readonly issuer: string;
  readonly clientId: string;
}

const SERVICE_SUBJECT = /^service:[\w.-]{1,64}$/;
const MAX_SCOPE_LENGTH = 512;
const MAX_SCOPES = 64;
/** Claims that contain what a client may do: RFC 8693 section 4.2; Okta and Entra; Entra; Auth0. */
const SCOPE_CLAIMS = ['scope', 'scp', 'roles', 'permissions'];

/**
 * Reads the operator of a token: a user's access token that the issuer of the console issued to its client. The user of
 * any other client is none, whatever the scopes are: another application may use the same names for scopes of its own.
 * @returns undefined for any other token
 * @throws TollgateError VALIDATION_FAILED with the name of the claim
 */
export function readOperator(
  provider: IdentityProvider,
  claims: JsonObject,
  { client, derivedId }: { readonly client: OperatorClient; readonly derivedId: string },
): ServiceIdentity | undefined {
  if (provider.issuer !== client.issuer || userFault(claims, provider) !== undefined) return undefined;
  if (!clientsOf(claims).includes(client.clientId)) return undefined;
  const { identity } = readClaims(provider, claims, () => derivedId);
  const { userId, sessionId, tokenId, tokenIssuedAt, tokenExpiresAt } = identity;
  const operator = { userId, sessionId, provider: provider.name };
  const scopes = SCOPE_CLAIMS.flatMap((claim) => textsOf(claims[claim], ' ').texts);
  const named = { tokenId, tokenIssuedAt, tokenExpiresAt };
  return { serviceId: `user:${userId}`, scopes: [...new Set(scopes)].slice(0, MAX_SCOPES), operator, ...named };
}

/**
 * Reads the service of a token: one of the reference auth service (`sub` is `service:<id>`), or the own token of a
 * client that the provider's file maps to a service. A token that would be accepted as a user's is never a service's.
 * @param derivedId replaces the token id if the token has none
 * @throws TollgateError VALIDATION_FAILED with the name of the claim
 */
export function readService(provider: IdentityProvider, claims: JsonObject, derivedId: string): ServiceIdentity {
  const tokenId = idOf(claimAt(claims, provider.claims.token_id.from[0] ?? 'jti')) ?? derivedId;
  const named = { tokenId, ...readTimes(claims) };
  if (!provider.namesServices) return { ...mappedService(provider, claims), ...named };
  const { sub, scope = '', token_use: use } = claims;
  if (use !== 'service') throw refusedClaim('token_use', 'not a token of a service');
  if (typeof sub !== 'string' || !SERVICE_SUBJECT.test(sub)) throw refusedClaim('sub', 'not the subject of a service');
  if (typeof scope !== 'string' || scope.length > MAX_SCOPE_LENGTH) throw refusedClaim('scope', 'not a list of scopes');
  return { serviceId: sub.slice(SERVICE_PREFIX.length), scopes: scope.split(' ').filter(Boolean), ...named };
}

function mappedService(provider: IdentityProvider, claims: JsonObject): Pick<ServiceIdentity, 'serviceId' | 'scopes'> {
  if (userFault(claims, provider) === undefined) throw refusedClaim('sub', 'not marked as the own token of a client');
  const ids = [...clientsOf(claims), claims.sub];
  const rule = provider.services.find(({ client }) => ids.includes(client));
  if (!rule) throw refusedClaim('client_id or azp or sub', 'no service has this client');
  return { serviceId: rule.serviceId, scopes: scopesOf(rule, claims) };
}

function scopesOf({ scopes, scopeMap }: ServiceRule, claims: JsonObject): readonly string[] {
  const granted = SCOPE_CLAIMS.flatMap((claim) => textsOf(claims[claim], ' ').texts);
  return [...new Set([...scopes, ...granted.flatMap((name) => scopeMap.get(name) ?? [])])];
}
