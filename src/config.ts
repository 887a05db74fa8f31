import { isIP } from 'node:net';
import { z } from 'zod';
import { parseRedisUrl } from './lib/redis-url.ts';
import { SAMPLERS } from './lib/tracing.ts';

/** Exit code for an invalid configuration: EX_CONFIG of sysexits.h. */
export const EXIT_CONFIG = 78;

export type ConfigProblemCode =
  | 'MISSING_JWT_SECRET'
  | 'MISSING_SERVICE_SECRET'
  | 'MISSING_AUTH_SERVICE_URL'
  | 'WEAK_SECRET'
  | 'INVALID_URL'
  | 'INVALID_VALUE'
  | 'FORBIDDEN_IN_PRODUCTION';

export interface ConfigProblem {
  readonly code: ConfigProblemCode;
  /** Name of the environment variable. */
  readonly name: string;
  readonly message: string;
}

/** Invalid environment or catalogue file. The process prints the message and exits with `EXIT_CONFIG`. */
export class UnusableConfiguration extends Error {}

/** All problems of an environment in one error. The message never contains the value of a secret. */
export class ConfigError extends UnusableConfiguration {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    const lines = problems.map(({ code, name, message }) => `  ${code}  ${name}: ${message}`);
    super(`The configuration is not usable:\n${lines.join('\n')}\n.env.example describes every variable.\n`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

const ENVIRONMENTS = ['development', 'test', 'staging', 'production'] as const;

const seconds = (fallback: number, min = 1, max = 86_400) =>
  z.coerce.number().int().min(min).max(max).default(fallback);
const count = (fallback: number, min: number, max: number) =>
  z.coerce.number().int().min(min).max(max).default(fallback);
const port = (fallback: number) => z.coerce.number().int().min(0).max(65_535).default(fallback);
const flag = (fallback: 'true' | 'false' = 'false') =>
  z
    .enum(['true', 'false'])
    .default(fallback)
    .transform((value) => value === 'true');
const list = (fallback = '') =>
  z
    .string()
    .default(fallback)
    .transform((value) =>
      value
        .split(',')
        .map((item) => item.trim())
        .filter(Boolean),
    );
const text = z.string().optional();
/** Media type of RFC 6838 section 4.2; the top-level type is optional (RFC 7515 section 4.1.9). */
const MEDIA_TYPE = /^[a-z\d][\w!#$&^.+-]{0,126}(\/[a-z\d][\w!#$&^.+-]{0,126})?$/i;
/** `key=value,key=value`, percent-encoded as in a `baggage` header (W3C Baggage). */
const pairs = z
  .string()
  .default('')
  .refine((value) => /^([^=,]+=[^,]*(,|$))*$/.test(value), 'must be key=value pairs, separated by commas')
  .transform((value) => Object.fromEntries(value.split(',').filter(Boolean).map(pair)));

function pair(text: string): [string, string] {
  const at = text.indexOf('=');
  return [text.slice(0, at).trim(), unescaped(text.slice(at + 1).trim())];
}

function unescaped(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

/** All variables that Tollgate reads; `.env.example` describes each. Units are part of the names. */
const VARIABLES = z.object({
  ENVIRONMENT: z.enum(ENVIRONMENTS).default('production'),
  HOST: z.string().default('0.0.0.0'),
  PORT: port(8000),
  WORKER_PORT: port(8090),
  AUTH_PORT: port(8081),
  PUBLIC_URL: text,
  METRICS_PORT: z.coerce.number().int().min(0).max(65_535).optional(),
  REDIS_URL: text,
  REDIS_SENTINEL_USERNAME: text,
  REDIS_SENTINEL_PASSWORD: text,
  REDIS_TLS_CA_FILE: text,
  REDIS_TLS_CERT_FILE: text,
  REDIS_TLS_KEY_FILE: text,
  REDIS_TLS_SERVER_NAME: text,
  REDIS_WAIT_REPLICAS: count(0, 0, 10),
  REDIS_WAIT_TIMEOUT_MS: count(100, 1, 2_000),
  CATALOGUE_DIR: text,
  REDIS_KEY_PREFIX: z
    .string()
    .regex(/^[\w-]{1,32}$/, 'must have 1 to 32 letters, digits, _ or -')
    .default('tollgate'),
  AUTH_SERVICE_URL: text,
  AUTH_PUBLIC_URL: text,
  AUTH_CLIENT_ID: z
    .string()
    .regex(/^[\x21-\x7e]{1,128}$/, 'must have 1 to 128 visible ASCII characters')
    .default('tollgate'),
  TOKEN_INTROSPECTION: z.enum(['never', 'opaque', 'always']).default('never'),
  JWT_SECRET_KEY: text,
  JWT_SECRET_KEY_PREVIOUS: text,
  JWKS_URL: text,
  JWT_ISSUER: text,
  JWT_AUDIENCE: z.string().default('tollgate'),
  IDENTITY_PROVIDERS: text,
  JWT_ACCEPTED_TYPES: list('at+jwt,JWT,none').refine(
    (types) => types.length > 0 && types.every((type) => MEDIA_TYPE.test(type)),
    'must be media types such as at+jwt, or none, separated by commas',
  ),
  SERVICE_SECRET: text,
  ACCESS_TOKEN_SECONDS: z.coerce.number().int().min(5).max(3_600).optional(),
  DEMO_PASSWORD: text,
  CONSOLE_ISSUER: text,
  CONSOLE_CLIENT_ID: z
    .string()
    .regex(/^[\x21-\x7e]{1,128}$/, 'must have 1 to 128 visible ASCII characters')
    .default('tollgate-console'),
  CONSOLE_SCOPE: z
    .string()
    .regex(/^[\x21-\x7e]+( [\x21-\x7e]+)*$/, 'must be scopes separated by single spaces')
    .max(512)
    .default('openid admin:read admin'),
  CONSOLE_REDIRECT_URIS: list(),
  CONSOLE_PROMETHEUS_URL: text,
  CONSOLE_TRACES_URL: text,
  DEV_AUTH_BYPASS: flag(),
  MAX_CONNECTIONS_PER_USER: count(3, 1, 1_000),
  MESSAGE_RATE_PER_MINUTE: count(30, 1, 1_000_000),
  MAX_MESSAGE_BYTES: count(8_192, 256, 65_536),
  AUTH_DEADLINE_SECONDS: seconds(10, 1, 300),
  AUTH_FAILURES_PER_MINUTE: count(10, 1, 1_000_000),
  PENDING_CONNECTIONS_PER_ADDRESS: count(50, 1, 1_000_000),
  BLOCKING_MS_PER_MINUTE: count(1_000, 50, 60_000),
  HEARTBEAT_INTERVAL_SECONDS: seconds(45, 1, 3_600),
  CONNECTION_TIMEOUT_SECONDS: seconds(300, 2),
  CONNECTION_LEASE_SECONDS: seconds(30, 2, 600),
  MAX_CONNECTION_AGE_SECONDS: seconds(0, 0, 7 * 86_400),
  TOKEN_REFRESH_LEAD_SECONDS: seconds(15, 1, 3_600),
  TOKEN_DEGRADED_TIMEOUT_SECONDS: seconds(180, 0),
  CORS_ORIGINS: list(),
  TRUSTED_PROXY_HOPS: count(0, 0, 16),
  DRAIN_SECONDS: seconds(30, 0, 3_600),
  EVENT_LOG_LENGTH: count(1_000, 10, 1_000_000),
  EVENT_LOG_HOURS: count(24, 1, 24 * 30),
  EVENT_LOG_BYTES: count(8 * 1024 * 1024, 256 * 1024, 1024 * 1024 * 1024),
  RUN_CONCURRENCY: count(50, 1, 1_000),
  RUN_TIMEOUT_SECONDS: seconds(45, 1, 3_600),
  INPUT_EXPIRES_SECONDS: seconds(3_600, 5, 604_800),
  TOOL_TIMEOUT_SECONDS: seconds(30, 1, 600),
  TOOL_CONCURRENCY: count(200, 1, 10_000),
  USAGE_ARCHIVE_URL: text,
  USAGE_JOURNAL_SECONDS: seconds(60, 0, 600),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  OTEL_SDK_DISABLED: flag(),
  OTEL_EXPORTER_OTLP_ENDPOINT: text,
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: text,
  OTEL_SERVICE_NAME: text,
  OTEL_RESOURCE_ATTRIBUTES: pairs,
  OTEL_TRACES_SAMPLER: z.enum(SAMPLERS).default('parentbased_always_on'),
  OTEL_TRACES_SAMPLER_ARG: z.coerce.number().min(0).max(1).default(1),
  OTEL_BSP_MAX_QUEUE_SIZE: count(2_048, 1, 1_000_000),
  OTEL_BSP_SCHEDULE_DELAY: count(5_000, 1, 600_000),
  TRUST_CLIENT_TRACES: flag('true'),
  AGENT_MODEL_URL: text,
  AGENT_MODEL_NAME: text,
  AGENT_MODEL_KEY: text,
  TOOL_SERVERS: text,
});

type Variables = z.infer<typeof VARIABLES>;

/** Names of all variables, for the test that compares `.env.example` with this file. */
export const VARIABLE_NAMES: readonly string[] = Object.keys(VARIABLES.shape);

export type Config = Omit<
  Variables,
  'AUTH_SERVICE_URL' | 'AUTH_PUBLIC_URL' | 'REDIS_URL' | 'SERVICE_SECRET' | 'JWT_ISSUER'
> & {
  readonly AUTH_SERVICE_URL: string;
  /** Defaults to `AUTH_SERVICE_URL`. In a cluster that is an internal name, which browsers cannot resolve. */
  readonly AUTH_PUBLIC_URL: string;
  readonly REDIS_URL: string;
  readonly SERVICE_SECRET: string;
  /** Defaults to `AUTH_SERVICE_URL`: the reference auth service is its own issuer. */
  readonly JWT_ISSUER: string;
  /** Returns the value of a variable to which the file `TOOL_SERVERS` refers. */
  readonly variable: (name: string) => string | undefined;
};

/** Whether a variable belongs to Tollgate; its value must not be passed to tool servers. */
export function isTollgateVariable(name: string): boolean {
  return VARIABLE_NAMES.includes(name);
}

/** HS256 requires a key of at least the size of its hash, 256 bits: RFC 7518 section 3.2. */
const MIN_SECRET_BYTES = 32;
/** No word is a prefix of another, so a search from left to right finds the only way to split a text into them. */
const WELL_KNOWN_WORDS =
  /password|secret|test|changeme|change-me|default|example|admin|tollgate|jwt[-_]?secret|12345\d{0,99}/g;

const SECRETS = ['JWT_SECRET_KEY', 'JWT_SECRET_KEY_PREVIOUS', 'SERVICE_SECRET'] as const;
const REDIS_TLS_VARIABLES = [
  'REDIS_TLS_CA_FILE',
  'REDIS_TLS_CERT_FILE',
  'REDIS_TLS_KEY_FILE',
  'REDIS_TLS_SERVER_NAME',
] as const;
const HTTP_URLS = [
  'PUBLIC_URL',
  'AUTH_SERVICE_URL',
  'AUTH_PUBLIC_URL',
  'JWKS_URL',
  'OTEL_EXPORTER_OTLP_ENDPOINT',
  'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT',
  'AGENT_MODEL_URL',
  'CONSOLE_ISSUER',
  'CONSOLE_PROMETHEUS_URL',
  'CONSOLE_TRACES_URL',
] as const;

/**
 * Validates the environment and returns the configuration. No other function reads the environment. Empty variables
 * count as unset.
 * @throws ConfigError with all problems
 */
export function loadConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const environment = Object.fromEntries(
    Object.entries(env).filter(([, value]) => value !== undefined && value !== ''),
  );
  const { values, problems } = parseVariables(environment);
  const production = values.ENVIRONMENT === 'production';

  if (!values.JWT_SECRET_KEY && !values.JWKS_URL && !values.IDENTITY_PROVIDERS) {
    problems.push(problem('MISSING_JWT_SECRET', 'JWT_SECRET_KEY', 'JWT_SECRET_KEY (or JWKS_URL) is required'));
  }
  if (!values.SERVICE_SECRET) {
    problems.push(problem('MISSING_SERVICE_SECRET', 'SERVICE_SECRET', 'SERVICE_SECRET is required'));
  }
  if (!values.AUTH_SERVICE_URL) {
    problems.push(problem('MISSING_AUTH_SERVICE_URL', 'AUTH_SERVICE_URL', 'AUTH_SERVICE_URL is required'));
  }
  for (const name of SECRETS) problems.push(...secretProblems(name, values[name]));
  for (const name of HTTP_URLS) problems.push(...urlProblems(name, values[name], production));
  problems.push(...redisProblems(values));
  problems.push(...archiveUrlProblems(values.USAGE_ARCHIVE_URL));
  problems.push(...originProblems(values.CORS_ORIGINS, production));
  for (const uri of values.CONSOLE_REDIRECT_URIS)
    problems.push(...urlProblems('CONSOLE_REDIRECT_URIS', uri, production));
  if (values.DEV_AUTH_BYPASS && (production || values.ENVIRONMENT === 'staging')) {
    problems.push(problem('FORBIDDEN_IN_PRODUCTION', 'DEV_AUTH_BYPASS', `must not be set in ${values.ENVIRONMENT}`));
  }
  if (values.AGENT_MODEL_URL && !values.AGENT_MODEL_NAME) {
    problems.push(problem('INVALID_VALUE', 'AGENT_MODEL_NAME', 'AGENT_MODEL_NAME is required with AGENT_MODEL_URL'));
  }
  if (values.CONNECTION_TIMEOUT_SECONDS <= values.HEARTBEAT_INTERVAL_SECONDS) {
    const text =
      'must be longer than HEARTBEAT_INTERVAL_SECONDS, or idle connections are closed before they can answer a ping';
    problems.push(problem('INVALID_VALUE', 'CONNECTION_TIMEOUT_SECONDS', text));
  }
  if (problems.length > 0) throw new ConfigError(problems);

  const { AUTH_SERVICE_URL = '', REDIS_URL = '', SERVICE_SECRET = '', JWT_ISSUER, AUTH_PUBLIC_URL } = values;
  const variable = (name: string) => env[name] || undefined;
  return {
    ...values,
    AUTH_SERVICE_URL,
    AUTH_PUBLIC_URL: AUTH_PUBLIC_URL ?? AUTH_SERVICE_URL,
    REDIS_URL,
    SERVICE_SECRET,
    JWT_ISSUER: JWT_ISSUER ?? AUTH_SERVICE_URL,
    variable,
  };
}

/**
 * Parses the variables. Invalid ones are replaced by their defaults, so that later checks still report all problems.
 */
function parseVariables(environment: Record<string, unknown>): { values: Variables; problems: ConfigProblem[] } {
  const parsed = VARIABLES.safeParse(environment);
  if (parsed.success) return { values: parsed.data, problems: [] };
  const problems = parsed.error.issues.map((issue) => problem('INVALID_VALUE', String(issue.path[0]), issue.message));
  const sound = { ...environment };
  for (const { name } of problems) delete sound[name];
  return { values: VARIABLES.parse(sound), problems };
}

function problem(code: ConfigProblemCode, name: string, message: string): ConfigProblem {
  return { code, name, message };
}

function secretProblems(name: string, secret: string | undefined): ConfigProblem[] {
  if (secret === undefined) return [];
  const bytes = Buffer.byteLength(secret);
  if (bytes < MIN_SECRET_BYTES) {
    return [problem('WEAK_SECRET', name, `must be at least ${MIN_SECRET_BYTES} characters, got ${bytes}`)];
  }
  if (new Set(secret).size === 1) return [problem('WEAK_SECRET', name, 'is one character repeated')];
  if (isWellKnown(secret)) return [problem('WEAK_SECRET', name, 'is a well-known word')];
  return [];
}

/** Whether the secret consists of well-known words only, or begins with "your-" apart from them. */
function isWellKnown(secret: string): boolean {
  const rest = secret.toLowerCase().replaceAll(WELL_KNOWN_WORDS, '');
  return rest === '' || /^your[-_ ]/.test(rest);
}

function urlProblems(name: string, value: string | undefined, production: boolean): ConfigProblem[] {
  const fault = value === undefined ? undefined : urlFault(value, production);
  return fault === undefined ? [] : [problem('INVALID_URL', name, fault)];
}

/** Describes the problem of a service URL; returns undefined for a valid one. */
export function urlFault(value: string, production: boolean): string | undefined {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (!url || !['http:', 'https:'].includes(url.protocol) || !value.includes('://')) {
    return 'Invalid URL: must be an absolute http or https URL';
  }
  if (production && url.protocol === 'http:' && isPublicHost(url.hostname)) {
    return 'Invalid URL: plain http to a public host is not allowed in production';
  }
  return undefined;
}

const PRIVATE_ADDRESS = /^(127\.|10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|::1$|f[cd][0-9a-f]{2}:)/i;

/**
 * Whether a host is in the public DNS or address space. Private addresses (RFC 1918, RFC 4193), loopback, single-label
 * service names and cluster names are internal, where plain http is common.
 */
function isPublicHost(host: string): boolean {
  const address = host.replace(/^\[|\]$/g, '');
  if (isIP(address)) return !PRIVATE_ADDRESS.test(address);
  return host.includes('.') && !/\.(local|internal|svc|localhost|test)$/.test(host);
}

/**
 * Rejects variables that have no effect with the given topology or without TLS; operators could rely on them in vain.
 */
function redisProblems(values: Variables): ConfigProblem[] {
  const { REDIS_URL: url } = values;
  if (url === undefined) return [problem('INVALID_VALUE', 'REDIS_URL', 'REDIS_URL is required')];
  const address = parseRedisUrl(url);
  if (typeof address === 'string') return [problem('INVALID_VALUE', 'REDIS_URL', address)];
  const unused = (names: readonly (keyof Variables)[], text: string) => {
    return names.filter((name) => values[name] !== undefined).map((name) => problem('INVALID_VALUE', name, text));
  };
  const problems: ConfigProblem[] = [];
  if (!address.tls) problems.push(...unused(REDIS_TLS_VARIABLES, 'needs a rediss:// URL in REDIS_URL'));
  if (address.topology !== 'sentinel') {
    const text = 'needs a redis+sentinel:// URL in REDIS_URL';
    problems.push(...unused(['REDIS_SENTINEL_USERNAME', 'REDIS_SENTINEL_PASSWORD'], text));
  }
  if (address.topology === 'cluster' && values.REDIS_WAIT_REPLICAS > 0) {
    // WAIT covers one connection, and each shard has its own. Use `min-replicas-to-write` on a cluster instead.
    problems.push(
      problem('INVALID_VALUE', 'REDIS_WAIT_REPLICAS', 'must be 0 with a redis+cluster:// URL in REDIS_URL'),
    );
  }
  if ((values.REDIS_TLS_CERT_FILE === undefined) !== (values.REDIS_TLS_KEY_FILE === undefined)) {
    const text = 'REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE must be set together';
    problems.push(problem('INVALID_VALUE', 'REDIS_TLS_CERT_FILE', text));
  }
  return problems;
}

function archiveUrlProblems(value: string | undefined): ConfigProblem[] {
  if (value === undefined) return [];
  if (URL.canParse(value) && ['postgres:', 'postgresql:'].includes(new URL(value).protocol)) return [];
  return [problem('INVALID_URL', 'USAGE_ARCHIVE_URL', 'Invalid URL: must be a postgres:// or postgresql:// URL')];
}

function originProblems(origins: readonly string[], production: boolean): ConfigProblem[] {
  return origins.flatMap((origin) => {
    if (origin === '*') {
      return production ? [problem('INVALID_VALUE', 'CORS_ORIGINS', '* is not allowed in production')] : [];
    }
    // Origins are compared as whole strings, so an entry in another form than browsers send would never match.
    const exact = URL.canParse(origin) && new URL(origin).origin === origin;
    return exact
      ? []
      : [problem('INVALID_VALUE', 'CORS_ORIGINS', `"${origin}" is not an origin (scheme://host[:port])`)];
  });
}
