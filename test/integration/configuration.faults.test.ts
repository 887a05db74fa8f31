import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { freePorts } from '../../scripts/lib/ports.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from '../support/open-resources.ts';

const ENTRIES = ['src/main.ts', 'workers/main.ts', 'auth-service/main.ts'] as const;
const EX_CONFIG = 78;
const invalidAuthUrl = ['INVALID_URL AUTH_SERVICE_URL'];

type Environment = Readonly<Record<string, string | undefined>>;

/** Every port that a process listens on is taken, so a process that tries exits with 1. */
let ports: Environment;
/** Replaces Redis. It answers nothing and counts connections. */
const redis = { port: 0, connections: 0 };

beforeAll(async () => {
  const taken = await freePorts(5);
  const [gateway, metrics, worker, auth, redisPort] = taken.map(String);
  for (const port of taken.slice(0, 4)) await listen(port, () => {});
  redis.port = Number(redisPort);
  await listen(redis.port, () => {
    redis.connections += 1;
  });
  ports = { PORT: gateway, METRICS_PORT: metrics, WORKER_PORT: worker, AUTH_PORT: auth };
});

async function listen(port: number, connected: () => void): Promise<void> {
  const server = createServer((socket) => {
    connected();
    socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  closeAfter('file', () => new Promise((resolve) => server.close(resolve)));
}

const secret = () => randomBytes(32).toString('base64url');

/** A valid environment. */
function sound(): Environment {
  return {
    ...ports,
    HOST: '127.0.0.1',
    ENVIRONMENT: 'test',
    JWT_SECRET_KEY: secret(),
    SERVICE_SECRET: secret(),
    AUTH_SERVICE_URL: 'http://127.0.0.1:8081',
    REDIS_URL: `redis://127.0.0.1:${redis.port}`,
  };
}

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function run(entry: string, env: Environment): Promise<Ended> {
  const child = spawn(process.execPath, [entry], { cwd: PROJECT_ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] });
  closeAfter('test', () => child.kill('SIGKILL'));
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, out, err }));
  });
}

/** Returns `<code> <variable>` per reported problem. */
function problems(err: string): string[] {
  return [...err.matchAll(/^ {2}([A-Z_]+) {2}(\w+): \S/gm)].map(([, code, name]) => `${code} ${name}`).sort();
}

/** Expects that every process refuses to start, reports every problem, and has opened no connection. */
async function expectRefused(changes: Environment, expected: readonly string[]): Promise<void> {
  const env = { ...sound(), ...changes };
  const before = redis.connections;
  const ends = await Promise.all(ENTRIES.map((entry) => run(entry, env)));
  for (const [at, { code, out, err }] of ends.entries()) {
    expect([ENTRIES[at], code, problems(err), out]).toEqual([ENTRIES[at], EX_CONFIG, [...expected].sort(), '']);
    expect(err).not.toMatch(/^\s+at /m);
    for (const name of ['JWT_SECRET_KEY', 'JWT_SECRET_KEY_PREVIOUS', 'SERVICE_SECRET']) {
      const value = env[name as keyof typeof env];
      if (value) expect(err).not.toContain(value);
    }
    expect(err).not.toContain('hunter2');
  }
  expect(redis.connections).toBe(before);
}

describe('a process with a wrong configuration ends with 78, reports all, and opens neither port nor Redis', () => {
  it.each<[string, Environment, string[]]>([
    ['B164 B197 no SERVICE_SECRET', { SERVICE_SECRET: undefined }, ['MISSING_SERVICE_SECRET SERVICE_SECRET']],
    ['B164 B197 an empty SERVICE_SECRET', { SERVICE_SECRET: '' }, ['MISSING_SERVICE_SECRET SERVICE_SECRET']],
    [
      'B166 B200 no JWT_SECRET_KEY, whatever older names are set',
      { JWT_SECRET_KEY: undefined, JWT_SECRET: 'x'.repeat(40), AUTH_SECRET: 'x'.repeat(40) },
      ['MISSING_JWT_SECRET JWT_SECRET_KEY'],
    ],
    ['B168 B203 no AUTH_SERVICE_URL', { AUTH_SERVICE_URL: undefined }, ['MISSING_AUTH_SERVICE_URL AUTH_SERVICE_URL']],
    ['no REDIS_URL', { REDIS_URL: undefined }, ['INVALID_VALUE REDIS_URL']],
    ['B167 a JWT_SECRET_KEY of three letters', { JWT_SECRET_KEY: 'q7J' }, ['WEAK_SECRET JWT_SECRET_KEY']],
    [
      'B198 B201 weak secrets, the old one too',
      { JWT_SECRET_KEY: 'tooshort123', JWT_SECRET_KEY_PREVIOUS: 'z'.repeat(64), SERVICE_SECRET: 'password'.repeat(5) },
      ['WEAK_SECRET JWT_SECRET_KEY', 'WEAK_SECRET JWT_SECRET_KEY_PREVIOUS', 'WEAK_SECRET SERVICE_SECRET'],
    ],
    ['B169 B204 an AUTH_SERVICE_URL that is no URL', { AUTH_SERVICE_URL: 'not-a-valid-url' }, invalidAuthUrl],
    ['B170 an AUTH_SERVICE_URL with port 99999', { AUTH_SERVICE_URL: 'http://127.0.0.1:99999' }, invalidAuthUrl],
    [
      'B184 in staging, an AUTH_SERVICE_URL of another scheme, with a password in it',
      { ENVIRONMENT: 'staging', AUTH_SERVICE_URL: 'ftp://user:hunter2@auth.test' },
      invalidAuthUrl,
    ],
    [
      'a REDIS_URL of another scheme, with a password in it',
      { REDIS_URL: 'http://:hunter2@r' },
      ['INVALID_VALUE REDIS_URL'],
    ],
    [
      'B173 B183 B187 staging without any secret',
      { ENVIRONMENT: 'staging', JWT_SECRET_KEY: undefined, SERVICE_SECRET: undefined, AUTH_SERVICE_URL: undefined },
      [
        'MISSING_JWT_SECRET JWT_SECRET_KEY',
        'MISSING_SERVICE_SECRET SERVICE_SECRET',
        'MISSING_AUTH_SERVICE_URL AUTH_SERVICE_URL',
      ],
    ],
    [
      'B174 a part of the environment, wrong in many ways',
      {
        SERVICE_SECRET: undefined,
        JWT_SECRET_KEY: 'hunter2hunt',
        ENVIRONMENT: 'staging',
        DEV_AUTH_BYPASS: 'true',
        PORT: 'many',
        CORS_ORIGINS: 'app',
      },
      [
        'MISSING_SERVICE_SECRET SERVICE_SECRET',
        'WEAK_SECRET JWT_SECRET_KEY',
        'FORBIDDEN_IN_PRODUCTION DEV_AUTH_BYPASS',
        'INVALID_VALUE PORT',
        'INVALID_VALUE CORS_ORIGINS',
      ],
    ],
    [
      'B117 access tokens of more than an hour',
      { ACCESS_TOKEN_SECONDS: '3601' },
      ['INVALID_VALUE ACCESS_TOKEN_SECONDS'],
    ],
    [
      'B49 production with what is for development',
      {
        ENVIRONMENT: 'production',
        DEV_AUTH_BYPASS: 'true',
        CORS_ORIGINS: '*',
        AUTH_SERVICE_URL: 'http://auth.example.com',
      },
      ['FORBIDDEN_IN_PRODUCTION DEV_AUTH_BYPASS', 'INVALID_VALUE CORS_ORIGINS', ...invalidAuthUrl],
    ],
  ])('%s', async (_what, changes, expected) => {
    await expectRefused(changes, expected);
  });

  it('B166 the auth service cannot do without JWT_SECRET_KEY, where the others can by JWKS_URL', async () => {
    const env = { ...sound(), JWT_SECRET_KEY: undefined, JWKS_URL: 'http://127.0.0.1:1/jwks.json' };
    const before = redis.connections;
    const auth = await run('auth-service/main.ts', env);
    expect([auth.code, problems(auth.err), redis.connections]).toEqual([
      EX_CONFIG,
      ['MISSING_JWT_SECRET JWT_SECRET_KEY'],
      before,
    ]);
  });
});

describe('a process whose configuration is sound', () => {
  it.each(ENTRIES)('B165 B172 B196 B199 B202 goes on to Redis, and names no variable as wrong: %s', async (entry) => {
    const before = redis.connections;
    const url = `redis://:hunter2hunter2@127.0.0.1:${redis.port}`;
    const { code, err, out } = await run(entry, { ...sound(), REDIS_URL: url, LOG_LEVEL: 'trace' });
    // The process ends here because the server is not a Redis. An orchestrator restarts it after 1, and need not after
    // 78.
    expect(code).toBe(1);
    expect(err).toContain('Redis is not usable at REDIS_URL');
    expect(problems(err)).toEqual([]);
    expect(redis.connections).toBeGreaterThan(before);
    expect(err + out).not.toContain('hunter2');
  });
});
