import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import { describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { loadConfig, VARIABLE_NAMES } from '../../src/config.ts';

describe('.env.example', () => {
  const example = readFileSync(new URL('../../.env.example', import.meta.url), 'utf8');
  const lines = example.split('\n');

  it('lists exactly the variables that are read, each once', () => {
    const names = lines.flatMap((line) => /^([A-Z_0-9]+)=/.exec(line)?.[1] ?? []);
    expect([...names].sort()).toEqual([...VARIABLE_NAMES].sort());
  });

  it('says a sentence about each', () => {
    for (const [at, line] of lines.entries()) {
      if (/^[A-Z]/.test(line)) expect(`${line}: ${lines[at - 1]}`).toMatch(/: # .+\.$/);
    }
  });

  it('is a configuration once its required part is filled in, equal to the defaults', () => {
    const required = {
      JWT_SECRET_KEY: randomBytes(24).toString('base64url'),
      SERVICE_SECRET: randomBytes(24).toString('base64url'),
      AUTH_SERVICE_URL: 'https://auth.example.com',
      REDIS_URL: 'redis://localhost:6379',
    };
    const unsaid = { ...loadConfig(required), variable: expect.any(Function) };
    expect(loadConfig({ ...parseEnv(example), ...required })).toEqual(unsaid);
  });

  it('is read as .env by each process that npm run starts', () => {
    const { scripts } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>;
    };
    for (const process of ['gateway', 'worker', 'auth-service']) {
      expect(scripts[process]).toMatch(/^node --env-file-if-exists=\.env \S+\/main\.ts$/);
    }
  });
});
