/** Changes to the claims of a user's access token; `undefined` leaves a claim out. */
export type ClaimChanges = Readonly<Record<string, unknown>>;

const AZP = 'client-1';
const logoutEvent = { 'http://schemas.openid.net/event/backchannel-logout': {} };
const securityEvent = { 'https://schemas.openid.net/secevent/caep/event-type/session-revoked': {} };

/** Tokens that are not accepted as a bearer's access token, whatever their subject. */
export const NO_BEARER_TOKENS: readonly (readonly [string, ClaimChanges])[] = [
  ['bound to a DPoP key (RFC 9449)', { cnf: { jkt: '0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I' } }],
  ['bound to a certificate (RFC 8705)', { cnf: { 'x5t#S256': 'bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2' } }],
  ['bound to a key that it contains (RFC 7800)', { cnf: { jwk: { kty: 'OKP', crv: 'Ed25519', x: 'AA' } } }],
  ['bound to nothing that is named', { cnf: {} }],
  ['of token_type DPoP', { token_type: 'DPoP' }],
  ['of token_type refresh', { token_type: 'refresh' }],
  ['of several token_types', { token_type: ['Bearer'] }],
  ['a refresh token of Keycloak', { typ: 'Refresh' }],
  ['an offline token of Keycloak', { typ: 'Offline' }],
  ['an ID token of Keycloak', { typ: 'ID' }],
  ['a logout token (OpenID Connect Back-Channel Logout)', { events: logoutEvent }],
  ['a security event (RFC 8417)', { events: securityEvent }],
  ['a security event of none', { events: {} }],
  ['an ID token with a nonce', { token_use: undefined, nonce: 'n-0S6_WzA2Mj' }],
  ['an ID token of the token endpoint', { token_use: undefined, at_hash: 'MTIzNDU2Nzg5MDEyMzQ1Ng' }],
  ['an ID token of the hybrid flow', { token_use: undefined, c_hash: 'LDktKdoQak3Pk0cnXxCltA' }],
  ['an ID token with a scope', { token_use: undefined, at_hash: 'MTIzNDU2Nzg5MDEyMzQ1Ng', scope: 'openid' }],
];

/** Tokens that a client obtained for itself, with the user's subject as `sub`. */
export const CLIENT_TOKENS: readonly (readonly [string, (sub: string) => ClaimChanges])[] = [
  ['by client_id (RFC 9068, Cognito, Hydra)', (sub) => ({ client_id: sub })],
  ['by azp', (sub) => ({ azp: sub })],
  ['by appid (Entra v1)', (sub) => ({ appid: sub })],
  ['by cid (Okta)', (sub) => ({ cid: sub })],
  ['by its subject (Auth0)', (sub) => ({ sub: `${sub}@clients`, azp: sub })],
  ['by its grant (Auth0)', () => ({ gty: 'client-credentials' })],
  ['by idtyp (Entra)', () => ({ idtyp: 'app', azp: AZP })],
  ['by its user name (Keycloak)', () => ({ azp: 'Client-1', preferred_username: 'service-account-client-1' })],
];

/** Access tokens of users in the forms of various issuers, beside the required claims. */
export const USER_TOKENS: readonly (readonly [string, ClaimChanges, ClaimChanges])[] = [
  ['a serialiser that writes null', { typ: 'JWT' }, { cnf: null, token_type: null, nonce: null, email: null }],
  ['Hydra', { typ: 'JWT' }, { client_id: AZP, token_use: 'access_token', scp: ['openid'] }],
  ['Auth0', { typ: 'JWT', kid: 'k' }, { azp: AZP, scope: 'openid profile', gty: 'password' }],
  ['Auth0, RFC 9068 profile', { typ: 'at+jwt', kid: 'k' }, { client_id: AZP, scope: 'openid' }],
  ['Entra v1', { typ: 'JWT', x5t: 'AA', kid: 'AA' }, { appid: AZP, scp: 'access', idtyp: 'user', ver: '1.0' }],
  [
    'Entra v2',
    { typ: 'JWT', kid: 'AA' },
    { azp: AZP, azpacr: '0', scp: 'access', preferred_username: 'u@example.test' },
  ],
  ['Keycloak', { typ: 'JWT', kid: 'k' }, { typ: 'Bearer', azp: AZP, scope: 'openid', preferred_username: 'ada' }],
  ['Keycloak before 25', { typ: 'JWT', kid: 'k' }, { typ: 'Bearer', azp: AZP, nonce: 'n', acr: '1' }],
  ['Keycloak, a user of a misleading name', { typ: 'JWT' }, { azp: AZP, preferred_username: 'service-account-ada' }],
  ['Cognito', { kid: 'k' }, { client_id: AZP, token_use: 'access', scope: 'openid', origin_jti: 'o' }],
  ['Okta', { kid: 'k' }, { cid: AZP, uid: '00u1', scp: ['openid'], auth_time: 1_700_000_000 }],
  ['Zitadel', { typ: 'JWT', kid: '1' }, { client_id: AZP, scope: 'openid' }],
  ['authentik', { typ: 'JWT', kid: 'k' }, { azp: AZP, uid: 'u', auth_time: 1_700_000_000, amr: ['pwd'] }],
  ['an issuer that types what begins with the ID token', { typ: 'at+jwt' }, { nonce: 'n', at_hash: 'h' }],
  ['an issuer that repeats the nonce', { typ: 'JWT' }, { nonce: 'n', scope: 'openid' }],
  ['Simple JWT', { typ: 'JWT' }, { token_type: 'access' }],
  ['a delegation (RFC 8693)', { typ: 'at+jwt' }, { act: { sub: AZP }, client_id: AZP }],
  ['a claim events of its own', { typ: 'JWT' }, { events: ['concert'] }],
  ['SAP, which names its key set', { typ: 'JWT', jku: 'https://issuer.invalid/token_keys' }, { azp: AZP, cid: AZP }],
];

/** Header types that are accepted by default: RFC 9068 section 4, RFC 7515 section 4.1.9. */
export const ACCEPTED_TYPES = [
  undefined,
  'JWT',
  'jwt',
  'application/jwt',
  'at+jwt',
  'AT+JWT',
  'application/at+jwt',
  'Application/at+JWT',
];

/** Header types of other kinds of token, and of no kind. */
export const REFUSED_TYPES: readonly unknown[] = [
  'logout+jwt',
  'application/logout+jwt',
  'LOGOUT+JWT',
  'secevent+jwt',
  'dpop+jwt',
  'oauth-authz-req+jwt',
  'token-introspection+jwt',
  'client-authentication+jwt',
  'rt+jwt',
  'JOSE',
  'Bearer',
  'none',
  '',
  ' JWT',
  'at+jwt;v=1',
  'text/at+jwt',
  'application/x/jwt',
  'application/application/jwt',
  null,
  0,
  ['JWT'],
  { JWT: true },
];
