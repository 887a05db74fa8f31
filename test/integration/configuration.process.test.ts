import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { catalogueFiles } from '../support/catalogues.ts';
import { Stopwatch } from '../support/stopwatch.ts';

interface Ended {
  readonly code: number | null;
  readonly output: string;
  readonly tookMs: number;
}

/** Runs a process of Tollgate to its end, with only this environment. */
function run(entry: string, env: Readonly<Record<string, string>>): Promise<Ended> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, [entry], { cwd: PROJECT_ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, output, tookMs: performance.now() - startedAt }));
  });
}

describe('a process of Tollgate', () => {
  it.each(['src/main.ts', 'workers/main.ts', 'auth-service/main.ts'])(
    'B171 %s ends with 78 at once when nothing is configured, and names what is missing',
    async (entry) => {
      const watch = await Stopwatch.start();
      const { code, output, tookMs } = await run(entry, {});
      expect(code).toBe(78);
      // It takes half a second. A process that connected to something would take longer than any busy machine.
      expect(tookMs).toBeLessThan(watch.allow(10_000));
      for (const text of [
        'MISSING_JWT_SECRET  JWT_SECRET_KEY',
        'MISSING_SERVICE_SECRET  SERVICE_SECRET',
        'MISSING_AUTH_SERVICE_URL  AUTH_SERVICE_URL',
        'INVALID_VALUE  REDIS_URL',
      ]) {
        expect(output).toContain(text);
      }
      expect(output).not.toMatch(/^\s+at /m);
    },
  );

  it.each(['src/main.ts', 'workers/main.ts', 'auth-service/main.ts'])(
    '%s ends with 78 when plans and tools have mistakes, and names file, line and field of each',
    async (entry) => {
      const files = catalogueFiles({ plans: '{\n  "default": "free",\n  "plans": {},\n  "colour": "green"\n}' });
      const { code, output } = await run(entry, {
        ENVIRONMENT: 'test',
        JWT_SECRET_KEY: randomBytes(32).toString('hex'),
        SERVICE_SECRET: randomBytes(32).toString('hex'),
        AUTH_SERVICE_URL: 'http://127.0.0.1:9',
        REDIS_URL: 'redis://127.0.0.1:9',
        CATALOGUE_DIR: dirname(fileURLToPath(files.plans)),
      });
      expect(output).toContain('plans.json:4  colour: is not a field of this file');
      expect(output).not.toMatch(/^\s+at /m);
      expect(code).toBe(78);
    },
  );

  it('B174 names every problem of a partial configuration, and no secret', async () => {
    const { code, output } = await run('src/main.ts', {
      JWT_SECRET_KEY: 'hunter2hunt',
      DEV_AUTH_BYPASS: 'true',
      AUTH_SERVICE_URL: 'nowhere',
    });
    expect(code).toBe(78);
    expect(output).toContain('WEAK_SECRET  JWT_SECRET_KEY: must be at least 32 characters, got 11');
    expect(output).toContain('INVALID_URL  AUTH_SERVICE_URL');
    expect(output).toContain('MISSING_SERVICE_SECRET  SERVICE_SECRET');
    expect(output).toContain('FORBIDDEN_IN_PRODUCTION  DEV_AUTH_BYPASS');
    expect(output).not.toContain('hunter2');
  });
});
