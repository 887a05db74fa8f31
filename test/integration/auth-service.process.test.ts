import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from '@jest/globals';
import { closeAfter } from '../support/open-resources.ts';
import { randomSecret } from './auth-service.fixture.ts';

const SECRETS = { JWT_SECRET_KEY: randomSecret(), SERVICE_SECRET: randomSecret(), DEMO_PASSWORD: randomSecret() };
const ENVIRONMENT = {
  ENVIRONMENT: 'test',
  HOST: '127.0.0.1',
  AUTH_PORT: '0',
  AUTH_SERVICE_URL: 'http://auth.test',
  REDIS_URL: process.env.TEST_REDIS_URL ?? 'redis://127.0.0.1:6379',
  REDIS_KEY_PREFIX: `auth-${randomSecret().slice(0, 12)}`,
  LOG_LEVEL: 'warn',
  ...SECRETS,
};

function run(env: Record<string, string>): ChildProcess {
  const child = spawn(process.execPath, ['auth-service/main.ts'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  closeAfter('test', () => child.kill('SIGKILL'));
  return child;
}

async function ended(child: ChildProcess) {
  const [[code], out, err] = await Promise.all([
    once(child, 'exit'),
    child.stdout ? text(child.stdout) : '',
    child.stderr ? text(child.stderr) : '',
  ]);
  return { code, out, err };
}

describe('the auth service as a process', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('says where it listens, and ends with 0 on %s', async (signal) => {
    const child = run(ENVIRONMENT);
    const end = ended(child);
    let line = '';
    child.stdout?.on('data', (chunk) => {
      line += chunk;
      if (line.includes('\n')) child.kill(signal);
    });
    const { code, out, err } = await end;
    expect(code).toBe(0);
    expect(out).toMatch(/^auth service: http:\/\/localhost:\d+\n$/);
    expect(err).toBe('');
  });

  it('answers the logins in flight before it ends on SIGTERM', async () => {
    const child = run(ENVIRONMENT);
    const end = ended(child);
    const [line] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
    const port = /:(\d+)\n/.exec(String(line))?.[1];
    const login = () => {
      const form = { grant_type: 'password', username: 'pro@demo.local', password: SECRETS.DEMO_PASSWORD };
      return fetch(`http://127.0.0.1:${port}/oauth/token`, { method: 'POST', body: new URLSearchParams(form) });
    };
    expect((await login()).status).toBe(200);
    const logins = Promise.allSettled(Array.from({ length: 4 }, login));
    // A login takes about 0.3 s; by then, all of them have arrived.
    await delay(150);
    child.kill('SIGTERM');
    const answers = (await logins).map((answer) =>
      answer.status === 'fulfilled' ? answer.value.status : answer.reason,
    );
    expect(answers).toEqual(Array.from({ length: 4 }, () => 200));
    expect((await end).code).toBe(0);
  });

  it('ends with 78 and every problem by name when the configuration is wrong, repeating no secret', async () => {
    const { code, out, err } = await ended(
      run({ ...ENVIRONMENT, JWT_SECRET_KEY: 'short-secret', REDIS_URL: 'nowhere' }),
    );
    expect(code).toBe(78);
    expect(err).toMatch(/WEAK_SECRET {2}JWT_SECRET_KEY.*\n.*INVALID_VALUE {2}REDIS_URL/);
    expect(out + err).not.toContain('short-secret');
  });

  it('ends with 1 and says why when Redis is not there', async () => {
    const { code, err } = await ended(run({ ...ENVIRONMENT, REDIS_URL: 'redis://127.0.0.1:1' }));
    expect(code).toBe(1);
    expect(err).toContain('Redis is not usable at REDIS_URL');
  });
});
