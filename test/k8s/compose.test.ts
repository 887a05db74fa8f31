import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { parse } from 'yaml';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { loadConfig, VARIABLE_NAMES } from '../../src/config.ts';
import { parseRedisUrl } from '../../src/lib/redis-url.ts';
import { CLOSE_TIMEOUT_MS } from '../../workers/queue-workers.ts';
import { closeAfter } from '../support/open-resources.ts';

/** The fields that the tests use. */
interface Service {
  readonly image: string;
  readonly build?: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string | number>>;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly profiles?: readonly string[];
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
  readonly stop_grace_period?: string;
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: { readonly test: readonly string[] };
}

const MAKE_SECRETS = join(PROJECT_ROOT, 'scripts/make-secrets.mjs');

/** Returns the variables of an env file. */
function readEnv(file: string): Record<string, string> {
  const lines = readFileSync(file, 'utf8').trim().split('\n');
  return Object.fromEntries(lines.map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]));
}

function makeSecrets(): { file: string; env: Record<string, string> } {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-secrets-'));
  closeAfter('file', () => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, '.env');
  execFileSync(process.execPath, [MAKE_SECRETS, file]);
  return { file, env: readEnv(file) };
}

/** Reads the file like Compose: `${NAME:-default}`, `${NAME:?what to do}`, `$$`, and merged anchors. */
function readCompose(env: Readonly<Record<string, string>>): Readonly<Record<string, Service>> {
  const text = readFileSync(join(PROJECT_ROOT, 'docker-compose.yml'), 'utf8');
  const fill = (_whole: string, name: string, kind: string, rest: string) => {
    const value = env[name] || (kind === '-' ? rest : undefined);
    if (value === undefined) throw new Error(`${name}: ${rest}`);
    return value;
  };
  // Innermost first: a default may contain another variable.
  let filled = text.replace(/^ *#.*$/gm, '');
  for (let before = ''; before !== filled; ) {
    before = filled;
    filled = filled.replaceAll(/\$\{(\w+):(-|\?)([^{}]*)\}/g, fill);
  }
  filled = filled.replaceAll('$$', '$');
  return (parse(filled, { merge: true }) as { services: Record<string, Service> }).services;
}

describe('scripts/make-secrets.mjs', () => {
  const make = (...args: string[]) => spawnSync(process.execPath, [MAKE_SECRETS, ...args], { encoding: 'utf8' });

  it('makes secrets that only their owner can read, and keeps them at every further run', () => {
    const { file, env } = makeSecrets();
    expect(Object.keys(env)).toEqual([
      ...['JWT_SECRET_KEY', 'SERVICE_SECRET', 'REDIS_PASSWORD', 'ARCHIVE_PASSWORD', 'DEMO_PASSWORD'],
    ]);
    expect(new Set(Object.values(env)).size).toBe(5);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(make(file)).toMatchObject({ status: 0, stdout: `${file} exists and stays as it is\n`, stderr: '' });
    expect(readEnv(file)).toEqual(env);
  });

  it('names the secrets that an existing file lacks, and reports a file that cannot be written', () => {
    const { file } = makeSecrets();
    writeFileSync(file, 'JWT_SECRET_KEY=mine\nSERVICE_SECRET=mine\n');
    expect(make(file).stdout).toContain('it has no REDIS_PASSWORD, ARCHIVE_PASSWORD, DEMO_PASSWORD');
    expect(readFileSync(file, 'utf8')).toBe('JWT_SECRET_KEY=mine\nSERVICE_SECRET=mine\n');
    expect(make(join(file, 'below'))).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOTDIR') });
  });

  it('--rotate replaces one secret, and keeps the previous signing key and every other line', () => {
    const { file, env } = makeSecrets();
    appendFileSync(file, '# A comment.\nAGENT_MODEL_KEY=mine\n');
    expect(make(file, '--rotate', 'JWT_SECRET_KEY').status).toBe(0);
    const rotated = readEnv(file);
    const { JWT_SECRET_KEY, ...others } = env;
    expect(rotated).toMatchObject({ ...others, JWT_SECRET_KEY_PREVIOUS: JWT_SECRET_KEY, AGENT_MODEL_KEY: 'mine' });
    expect(rotated.JWT_SECRET_KEY).not.toBe(JWT_SECRET_KEY);
    expect(make(file, '--rotate', 'JWT_SECRET_KEY').status).toBe(0);
    expect(readEnv(file).JWT_SECRET_KEY_PREVIOUS).toBe(rotated.JWT_SECRET_KEY);
    expect(readFileSync(file, 'utf8').match(/^JWT_SECRET_KEY_PREVIOUS=/gm)).toHaveLength(1);
    expect(make(file, '--rotate', 'REDIS_PASSWORD').status).toBe(0);
    expect(readEnv(file).REDIS_PASSWORD).not.toBe(env.REDIS_PASSWORD);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(make(file, '--rotate', 'AGENT_MODEL_KEY').status).toBe(2);
  });

  it('replaces all secrets with --force only', () => {
    const { file, env } = makeSecrets();
    expect(make(file, '--force').status).toBe(0);
    const replaced = readEnv(file);
    expect(Object.keys(replaced)).toEqual(Object.keys(env));
    for (const [name, value] of Object.entries(env)) expect(replaced[name]).not.toBe(value);
    expect(make(file, '--forced').status).toBe(2);
  });
});

describe('docker-compose.yml', () => {
  let env: Record<string, string>;
  let services: Readonly<Record<string, Service>>;

  beforeAll(() => {
    ({ env } = makeSecrets());
    services = readCompose(env);
  });

  const service = (name: string): Service => {
    const found = services[name];
    if (!found) throw new Error(`there is no service ${name}`);
    return found;
  };
  const ours = () => Object.entries(services).filter(([, { build }]) => build !== undefined);

  it('brings up Redis, the auth service, three gateways, two workers and HAProxy, and more only when asked', () => {
    const always = Object.keys(services).filter((name) => service(name).profiles === undefined);
    expect(always.toSorted()).toEqual(
      ['auth', 'gateway-1', 'gateway-2', 'gateway-3', 'haproxy', 'redis', 'worker-1', 'worker-2'].toSorted(),
    );
    const withProfile = (profile: string) =>
      Object.keys(services).filter((name) => service(name).profiles?.[0] === profile);
    expect(withProfile('monitoring')).toEqual(['prometheus', 'grafana']);
    expect(withProfile('archive')).toEqual(['archive']);
    const sentinels = ['sentinel-1', 'sentinel-2', 'sentinel-3'];
    expect(withProfile('sentinel')).toEqual(['redis-2', 'redis-3', ...sentinels]);
    for (const name of withProfile('sentinel')) {
      expect(service(name).environment).toEqual({ NAME: name, REDIS_PASSWORD: env.REDIS_PASSWORD });
      expect(service(name).volumes).toEqual([`${name}:/data`]);
    }
  });

  it('goes by the Sentinels of its profile with the two lines that its head says', () => {
    const head = readFileSync(join(PROJECT_ROOT, 'docker-compose.yml'), 'utf8');
    const lines = [...head.matchAll(/^# {9}(REDIS_\w+)=(.+)$/gm)].map(([, name = '', value = '']) => {
      return [name, value.replace(/\$\{REDIS_PASSWORD\}/, env.REDIS_PASSWORD ?? '')] as const;
    });
    expect(lines.map(([name]) => name)).toEqual(['REDIS_URL', 'REDIS_SENTINEL_PASSWORD']);
    const { environment = {} } = readCompose({ ...env, ...Object.fromEntries(lines) })['gateway-1'] ?? {};
    const given = Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, String(value)]));
    const { REDIS_URL, REDIS_SENTINEL_PASSWORD } = loadConfig(given);
    expect(REDIS_SENTINEL_PASSWORD).toBe(env.REDIS_PASSWORD);
    expect(parseRedisUrl(REDIS_URL)).toMatchObject({
      password: env.REDIS_PASSWORD,
      masterName: 'tollgate',
      nodes: ['sentinel-1', 'sentinel-2', 'sentinel-3'].map((host) => ({ host, port: 26_379 })),
    });
  });

  it('does not start without secrets, and says how to make them', () => {
    expect(() => readCompose({})).toThrow(/make it with node scripts\/make-secrets\.mjs \.env/);
  });

  it('gives every process a configuration that it takes, with no variable that it does not know', () => {
    expect(ours()).toHaveLength(6);
    for (const [, { environment = {} }] of ours()) {
      const given = Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, String(value)]));
      expect(Object.keys(given).filter((name) => !VARIABLE_NAMES.includes(name))).toEqual([]);
      expect(loadConfig(given)).toMatchObject({ ENVIRONMENT: 'development', PORT: 8000, AUTH_PORT: 8081 });
    }
    for (const name of ['gateway-1', 'gateway-2', 'gateway-3']) {
      expect(service(name).environment).toMatchObject({ TRUSTED_PROXY_HOPS: 1, METRICS_PORT: 9464 });
    }
  });

  it('runs commands that are in the image, as processes that write nothing and may nothing', () => {
    for (const [, { command = [], read_only, cap_drop }] of ours()) {
      expect(command[0]).toBe('node');
      expect(existsSync(join(PROJECT_ROOT, command.at(-1) ?? ''))).toBe(true);
      expect({ read_only, cap_drop }).toEqual({ read_only: true, cap_drop: ['ALL'] });
    }
  });

  it('gives a worker the time to close its queues before it is killed', () => {
    const seconds = Number.parseInt(service('worker-1').stop_grace_period ?? '', 10);
    expect(seconds).toBeGreaterThanOrEqual(CLOSE_TIMEOUT_MS / 1_000 + 20);
  });

  it('gives a gateway the time to drain before it is killed', () => {
    const config = loadConfig({ ...service('gateway-1').environment } as Record<string, string>);
    expect(Number.parseInt(service('gateway-1').stop_grace_period ?? '', 10)).toBeGreaterThanOrEqual(
      config.DRAIN_SECONDS + 10,
    );
  });

  it('publishes nothing beyond this machine', () => {
    const published = Object.values(services).flatMap(({ ports = [] }) => ports);
    expect(published.length).toBeGreaterThan(0);
    for (const port of published) expect(port).toMatch(/^127\.0\.0\.1:/);
  });

  it('starts Redis with a password, an append-only file and no eviction, and everything else after it', () => {
    const script = service('redis').command?.at(-1);
    for (const setting of ['requirepass $REDIS_PASSWORD', 'maxmemory-policy noeviction', 'appendonly yes']) {
      expect(script).toContain(setting);
    }
    expect(script).not.toContain(env.REDIS_PASSWORD);
    for (const [, { depends_on, environment }] of ours()) {
      expect(depends_on).toMatchObject({ redis: { condition: 'service_healthy' } });
      expect(environment?.REDIS_URL).toBe(`redis://:${env.REDIS_PASSWORD}@redis:6379`);
    }
  });

  it('gives gateways and workers the archive only if its address is set, and only that address', () => {
    const USAGE_ARCHIVE_URL = `postgres://tollgate:${env.ARCHIVE_PASSWORD}@archive:5432/tollgate`;
    // As the head of the file describes.
    const text = readFileSync(join(PROJECT_ROOT, 'docker-compose.yml'), 'utf8');
    expect(text).toMatch(/USAGE_ARCHIVE_URL=postgres:\/\/tollgate:\$\{ARCHIVE_PASSWORD\}@archive:5432\/tollgate/);
    const archived = readCompose({ ...env, USAGE_ARCHIVE_URL });
    expect(archived.archive?.environment).toMatchObject({
      POSTGRES_USER: 'tollgate',
      POSTGRES_DB: 'tollgate',
      POSTGRES_PASSWORD: env.ARCHIVE_PASSWORD,
    });
    for (const name of ['gateway-1', 'worker-1', 'worker-2']) {
      const given = { ...archived[name]?.environment } as Record<string, string>;
      expect(loadConfig(given)).toMatchObject({ USAGE_ARCHIVE_URL });
    }
  });

  it('tells HAProxy the three gateways, and Prometheus all that have metrics', () => {
    const { GATEWAY_1, GATEWAY_2, GATEWAY_3 } = service('haproxy').environment ?? {};
    expect([GATEWAY_1, GATEWAY_2, GATEWAY_3]).toEqual(['gateway-1:8000', 'gateway-2:8000', 'gateway-3:8000']);
    const config = parse(readFileSync(join(PROJECT_ROOT, 'deploy/prometheus/prometheus.yml'), 'utf8'));
    const jobs = config.scrape_configs as { static_configs: { targets: string[] }[] }[];
    const targets = jobs.flatMap((job) => job.static_configs.flatMap((one) => one.targets));
    const expected = ours().flatMap(([name]) => {
      if (name.startsWith('gateway')) return [`${name}:9464`];
      return name.startsWith('worker') ? [`${name}:8090`] : [];
    });
    expect(targets.toSorted()).toEqual(expected.toSorted());
  });

  it('mounts only files that are there, and images with a version', () => {
    for (const { image, volumes = [] } of Object.values(services)) {
      expect(image).toMatch(/:v?\d/);
      for (const volume of volumes) {
        const [source = ''] = volume.split(':');
        if (source.startsWith('./')) expect([source, existsSync(join(PROJECT_ROOT, source))]).toEqual([source, true]);
      }
    }
  });
});
