import type { MappedField } from './identity-provider.ts';

export const PRESET_NAMES = [
  'keycloak',
  'auth0',
  'okta',
  'entra',
  'cognito',
  'google',
  'firebase',
  'supabase',
  'clerk',
  'zitadel',
  'workos',
] as const;
export type PresetName = (typeof PRESET_NAMES)[number];

/** Defaults of a provider's row, from the vendor's documentation of its tokens. Every field can be overridden. */
export interface Preset {
  readonly audience_claims?: readonly string[];
  /** Whether the keys belong to one client only, so that the tokens need no audience. */
  readonly any_audience?: boolean;
  readonly claims?: Partial<Record<MappedField, string | readonly string[]>>;
  readonly required?: readonly { claim: string; values?: readonly (string | number | boolean)[] }[];
  readonly id_tokens?: boolean;
  readonly user_mark?: string;
  /** Path below the issuer, for providers without discovery. */
  readonly keys_path?: string;
  readonly keys_url?: string;
  readonly issuer?: string;
}

export const PRESETS: Readonly<Record<PresetName, Preset>> = {
  // `aud` is `account` unless the client has an audience mapper; `azp` is the client.
  keycloak: {
    audience_claims: ['aud', 'azp'],
    claims: { roles: '/realm_access/roles', session_id: ['sid', 'session_state'], display_name: 'name' },
  },
  // Permissions need "Add Permissions in the Access Token"; plan and roles are namespaced claims of an Action.
  auth0: { claims: { tenant: 'org_id' } },
  // `sub` is the login name, which can change; `uid` is the id of the user.
  okta: { claims: { user_id: 'uid', roles: 'groups' } },
  // `sub` differs per application; `oid` is the id of the user. An application's own token has no `scp`.
  entra: {
    claims: {
      user_id: 'oid',
      token_id: 'uti',
      tenant: 'tid',
      display_name: 'name',
      email: ['email', 'preferred_username'],
    },
    user_mark: 'scp',
  },
  // An access token names its client in `client_id` and has no `aud`; an ID token has `token_use: "id"`.
  cognito: {
    audience_claims: ['client_id'],
    claims: { roles: 'cognito:groups', session_id: 'origin_jti', display_name: 'username' },
    required: [{ claim: 'token_use', values: ['access'] }],
  },
  // Access tokens of Google are opaque; APIs take its ID tokens.
  google: {
    issuer: 'https://accounts.google.com',
    claims: { tenant: 'hd', display_name: 'name' },
    id_tokens: true,
  },
  firebase: {
    keys_url: 'https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com',
    claims: { tenant: '/firebase/tenant', display_name: 'name' },
    id_tokens: true,
  },
  supabase: {
    keys_path: '/.well-known/jwks.json',
    claims: {
      session_id: 'session_id',
      plan: '/app_metadata/plan',
      roles: '/app_metadata/roles',
      display_name: '/user_metadata/full_name',
    },
    // Tokens of API keys have `anon` or `service_role`.
    required: [{ claim: 'role', values: ['authenticated'] }],
  },
  // A session token has no `aud`; `azp` is the origin of the page.
  clerk: {
    keys_path: '/.well-known/jwks.json',
    audience_claims: ['aud', 'azp'],
    claims: { tenant: '/o/id', roles: '/o/rol', plan: 'pla' },
    // Version 2 of the tokens. A pending session has to complete a task, such as choosing an organization.
    required: [{ claim: 'sts', values: ['active'] }],
  },
  zitadel: {
    claims: {
      roles: 'urn:zitadel:iam:org:project:roles',
      tenant: 'urn:zitadel:iam:user:resourceowner:id',
      display_name: 'name',
    },
  },
  // The key set is that of one client, and the tokens have no `aud`.
  workos: {
    any_audience: true,
    claims: { tenant: 'org_id', roles: ['roles', 'role'] },
  },
};
