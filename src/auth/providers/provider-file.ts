import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { CatalogueError, CatalogueFile } from '../../catalogue/catalogue-file.ts';
import { isTollgateVariable, urlFault } from '../../config.ts';
import { withoutTrailing } from '../../lib/text.ts';
import type { ClaimRule } from './claim-mapping.ts';
import {
  CLOCK_SKEW_SECONDS,
  type ClaimRules,
  DEFAULT_CLAIMS,
  type IdentityProvider,
  KEY_ALGORITHMS,
  type KeySource,
  MAPPED_FIELDS,
  type ProviderClient,
  REFRESH_MODES,
} from './identity-provider.ts';
import { PRESET_NAMES, PRESETS, type Preset } from './presets.ts';

const MAX_PROVIDERS = 16;
/** Bound of every list and map of a row. */
const MAX_ENTRIES = 256;
const REFERENCE = /^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$/;

const text = z.string().min(1).max(512);
const texts = z.array(text).max(MAX_ENTRIES);
const oneOrMore = z.union([text.transform((one) => [one]), texts.min(1)]);

const Rule = z.union([
  oneOrMore.transform((from) => ({ from, map: undefined, default: undefined })),
  z.strictObject({
    from: oneOrMore,
    map: z.record(text, oneOrMore).optional(),
    default: oneOrMore.optional(),
  }),
]);

const Condition = z.strictObject({
  claim: text,
  values: z
    .array(z.union([z.string(), z.number(), z.boolean()]))
    .min(1)
    .max(MAX_ENTRIES)
    .optional(),
});

const Service = z.strictObject({
  client: text,
  service_id: z.string().regex(/^[\w.-]{1,64}$/),
  scopes: texts.default([]),
  /** Scope of the provider → scopes of Tollgate. */
  scope_map: z.record(text, oneOrMore).default({}),
});

const ProviderRow = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/),
  preset: z.enum(PRESET_NAMES).optional(),
  issuer: text.optional(),
  audiences: texts.min(1).optional(),
  audience_claims: texts.min(1).optional(),
  keys_url: text.optional(),
  algorithms: z.array(z.enum(KEY_ALGORITHMS)).min(1).default(['RS256', 'ES256']),
  accepted_types: texts.min(1).default(['at+jwt', 'JWT', 'none']),
  clock_skew_seconds: z.number().int().min(0).max(300).default(CLOCK_SKEW_SECONDS),
  claims: z.partialRecord(z.enum(MAPPED_FIELDS), Rule).default({}),
  required: z.array(Condition).max(MAX_ENTRIES).optional(),
  user_clients: texts.min(1).optional(),
  id_tokens: z.boolean().optional(),
  user_mark: text.optional(),
  user_prefix: z
    .string()
    .regex(/^[\w.@:+|/=~,!$-]{0,64}$/)
    .default(''),
  /** Whether users with the same id at another provider are the same users. */
  shared_users: z.boolean().default(false),
  refresh: z.enum(REFRESH_MODES).default('auto'),
  client: z.strictObject({ id: text, secret: z.string().regex(REFERENCE).optional() }).optional(),
  services: z.array(Service).max(MAX_ENTRIES).default([]),
});
type ProviderRow = z.infer<typeof ProviderRow>;

const ProvidersFile = z.strictObject({ providers: z.array(ProviderRow).min(1).max(MAX_PROVIDERS) });

export interface ProviderFileContext {
  /** Looks up environment variables. */
  readonly variable: (name: string) => string | undefined;
  readonly production: boolean;
}

/**
 * Reads the file of `IDENTITY_PROVIDERS`.
 * @param path undefined without a file
 * @throws CatalogueError with file, line and field of each mistake
 */
export function readProviders(path: string | undefined, context: ProviderFileContext): readonly IdentityProvider[] {
  if (path === undefined) return [];
  const file = new CatalogueFile(pathToFileURL(path));
  const rows = file.parse(ProvidersFile)?.providers ?? [];
  refuseRepeated(file, rows);
  const providers = rows.map((row, at) => providerOf(file, ['providers', at], row, context));
  if (file.mistakes.length > 0) throw new CatalogueError(file.mistakes);
  return providers;
}

type Path = readonly (string | number)[];

function refuseRepeated(file: CatalogueFile, rows: readonly ProviderRow[]): void {
  for (const [at, row] of rows.entries()) {
    const earlier = rows.slice(0, at);
    if (earlier.some(({ name }) => name === row.name)) file.mistake(['providers', at, 'name'], 'is a duplicate');
    if (earlier.some((one) => issuerOf(one) === issuerOf(row))) {
      file.mistake(['providers', at, 'issuer'], 'is the issuer of another provider');
    }
    // Subjects are unique per issuer only (OpenID Connect Core section 2).
    const alike = earlier.filter(({ user_prefix: prefix }) => prefix === row.user_prefix);
    if (alike.some((one) => !one.shared_users || !row.shared_users)) {
      const text = 'is the prefix of another provider: set another one, or "shared_users" on both';
      file.mistake(['providers', at, 'user_prefix'], text);
    }
  }
}

function issuerOf(row: ProviderRow): string | undefined {
  return row.issuer ?? presetOf(row).issuer;
}

function presetOf({ preset }: ProviderRow): Preset {
  return preset === undefined ? {} : PRESETS[preset];
}

function providerOf(file: CatalogueFile, path: Path, row: ProviderRow, context: ProviderFileContext): IdentityProvider {
  const preset = presetOf(row);
  const issuer = issuerOf(row) ?? '';
  const issuerFault = urlFault(issuer, context.production);
  if (issuerFault !== undefined) file.mistake([...path, 'issuer'], issuerFault);
  const { audiences } = row;
  if (audiences === undefined && !preset.any_audience) {
    file.mistake(path, 'needs audiences: tokens for other services of the issuer would be accepted');
  }
  if (audiences === undefined && preset.any_audience && row.keys_url === undefined) {
    file.mistake(path, 'needs the keys_url of its client, or audiences');
  }
  if (row.refresh === 'refresh_token' && row.client === undefined) {
    file.mistake([...path, 'refresh'], 'needs the client to which the provider issues the refresh tokens');
  }
  return {
    name: row.name,
    issuer,
    audiences,
    audienceClaims: row.audience_claims ?? preset.audience_claims ?? ['aud'],
    secrets: [],
    keys: keySource(file, path, row, context),
    algorithms: row.algorithms,
    acceptedTypes: row.accepted_types,
    clockSkewSeconds: row.clock_skew_seconds,
    claims: rulesOf(row, preset),
    required: row.required ?? preset.required ?? [],
    userClients: row.user_clients,
    userMark: row.user_mark ?? preset.user_mark,
    acceptsIdTokens: row.id_tokens ?? preset.id_tokens ?? false,
    userPrefix: row.user_prefix,
    refresh: row.refresh,
    client: clientOf(file, path, row, context),
    namesServices: false,
    services: row.services.map(({ client, service_id: serviceId, scopes, scope_map: scopeMap }) => {
      return { client, serviceId, scopes, scopeMap: new Map(Object.entries(scopeMap)) };
    }),
  };
}

function keySource(file: CatalogueFile, path: Path, row: ProviderRow, { production }: ProviderFileContext): KeySource {
  const { keys_path: below, keys_url: preset } = presetOf(row);
  const issuer = issuerOf(row) ?? '';
  const beside = below === undefined ? undefined : `${withoutTrailing(issuer, '/')}${below}`;
  const url = row.keys_url ?? preset ?? beside;
  if (url === undefined) return { discover: issuer };
  const fault = urlFault(url, production);
  if (fault !== undefined && row.keys_url !== undefined) file.mistake([...path, 'keys_url'], fault);
  return { url };
}

function rulesOf(row: ProviderRow, preset: Preset): ClaimRules {
  const rules: Record<string, ClaimRule> = { ...DEFAULT_CLAIMS };
  for (const [field, from] of Object.entries(preset.claims ?? {})) {
    rules[field] = { from: typeof from === 'string' ? [from] : from };
  }
  for (const [field, rule] of Object.entries(row.claims)) {
    const map = rule.map === undefined ? undefined : new Map(Object.entries(rule.map));
    rules[field] = { from: rule.from, map, fallback: rule.default };
  }
  return rules as ClaimRules;
}

function clientOf(
  file: CatalogueFile,
  path: Path,
  { client }: ProviderRow,
  { variable }: ProviderFileContext,
): ProviderClient | undefined {
  if (client === undefined) return undefined;
  const name = REFERENCE.exec(client.secret ?? '')?.[1];
  if (name === undefined) return { id: client.id, secret: undefined };
  const at = [...path, 'client', 'secret'];
  if (isTollgateVariable(name))
    file.mistake(at, `${name} is a variable of Tollgate and must not be sent to a provider`);
  if (variable(name) === undefined) file.mistake(at, `${name} is not set in the environment`);
  return { id: client.id, secret: variable(name) };
}
