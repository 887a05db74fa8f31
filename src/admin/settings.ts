import type { Config } from '../config.ts';
import { describeRedisUrl } from '../lib/redis-url.ts';

/**
 * Variables whose values the console shows. Any other variable, also a future one, is secret: only whether it is set
 * can be seen.
 */
export const PUBLIC_VARIABLES = [
  'ENVIRONMENT',
  'HOST',
  'PORT',
  'WORKER_PORT',
  'AUTH_PORT',
  'METRICS_PORT',
  'REDIS_WAIT_REPLICAS',
  'REDIS_WAIT_TIMEOUT_MS',
  'REDIS_KEY_PREFIX',
  'AUTH_CLIENT_ID',
  'TOKEN_INTROSPECTION',
  'JWT_AUDIENCE',
  'JWT_ACCEPTED_TYPES',
  'CONSOLE_CLIENT_ID',
  'CONSOLE_SCOPE',
  'ACCESS_TOKEN_SECONDS',
  'DEV_AUTH_BYPASS',
  'MAX_CONNECTIONS_PER_USER',
  'MESSAGE_RATE_PER_MINUTE',
  'MAX_MESSAGE_BYTES',
  'AUTH_DEADLINE_SECONDS',
  'AUTH_FAILURES_PER_MINUTE',
  'PENDING_CONNECTIONS_PER_ADDRESS',
  'BLOCKING_MS_PER_MINUTE',
  'HEARTBEAT_INTERVAL_SECONDS',
  'CONNECTION_TIMEOUT_SECONDS',
  'CONNECTION_LEASE_SECONDS',
  'MAX_CONNECTION_AGE_SECONDS',
  'TOKEN_REFRESH_LEAD_SECONDS',
  'TOKEN_DEGRADED_TIMEOUT_SECONDS',
  'CORS_ORIGINS',
  'TRUSTED_PROXY_HOPS',
  'DRAIN_SECONDS',
  'EVENT_LOG_LENGTH',
  'EVENT_LOG_HOURS',
  'EVENT_LOG_BYTES',
  'RUN_CONCURRENCY',
  'RUN_TIMEOUT_SECONDS',
  'INPUT_EXPIRES_SECONDS',
  'TOOL_TIMEOUT_SECONDS',
  'TOOL_CONCURRENCY',
  'USAGE_JOURNAL_SECONDS',
  'LOG_LEVEL',
  'OTEL_SDK_DISABLED',
  'OTEL_SERVICE_NAME',
  'OTEL_TRACES_SAMPLER',
  'OTEL_TRACES_SAMPLER_ARG',
  'TRUST_CLIENT_TRACES',
  'AGENT_MODEL_NAME',
] as const satisfies readonly (keyof Config)[];

/** Addresses, of which only scheme, host and path are shown. */
const ADDRESSES = [
  'PUBLIC_URL',
  'AUTH_SERVICE_URL',
  'AUTH_PUBLIC_URL',
  'JWKS_URL',
  'JWT_ISSUER',
  'CONSOLE_ISSUER',
  'OTEL_EXPORTER_OTLP_ENDPOINT',
  'AGENT_MODEL_URL',
] as const satisfies readonly (keyof Config)[];

export interface Setting {
  readonly name: string;
  /** Null for a secret, and for a variable without a value. */
  readonly value: string | null;
  readonly source: 'environment' | 'default';
  readonly secret: boolean;
}

/** The effective configuration of this process. @param names all variables */
export function describeSettings(config: Config, names: readonly string[]): Setting[] {
  const open = new Map<string, string | null>(PUBLIC_VARIABLES.map((name) => [name, textOf(config[name])]));
  for (const name of ADDRESSES) open.set(name, withoutSecrets(config[name]));
  open.set('REDIS_URL', describeRedisUrl(config.REDIS_URL));
  return names.map((name) => ({
    name,
    value: open.get(name) ?? null,
    source: config.variable(name) === undefined ? 'default' : 'environment',
    secret: !open.has(name),
  }));
}

function textOf(value: string | number | boolean | readonly string[] | undefined): string | null {
  if (value === undefined) return null;
  return Array.isArray(value) ? value.join(',') : String(value);
}

function withoutSecrets(value: string | undefined): string | null {
  const url = value === undefined ? null : URL.parse(value);
  return url === null ? null : `${url.origin}${url.pathname}`;
}
