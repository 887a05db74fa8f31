import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { freePorts } from '../../scripts/lib/ports.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import type { Finding } from '../../src/doctor/findings.ts';
import { closeAfter } from './open-resources.ts';
import { oneRedisUrl, stack } from './stack.ts';

type Environment = Readonly<Record<string, string>>;

/** The output of a run of the doctor. */
export interface Examination {
  readonly code: number | null;
  readonly output: string;
  /** `area: check` → finding. */
  readonly found: ReadonlyMap<string, Finding>;
  readonly failed: string[];
}

/** Returns the environment of a deployment that works: the auth service and Redis of the stack, and free ports. */
async function healthy(): Promise<Environment> {
  const [port, workerPort, authPort] = await freePorts(3);
  return {
    PATH: process.env.PATH ?? '',
    ENVIRONMENT: 'test',
    HOST: '127.0.0.1',
    PORT: String(port),
    WORKER_PORT: String(workerPort),
    AUTH_PORT: String(authPort),
    REDIS_URL: await oneRedisUrl(),
    AUTH_SERVICE_URL: stack().authUrl,
    JWT_SECRET_KEY: stack().secrets.jwt,
    SERVICE_SECRET: stack().secrets.service,
  };
}

/** Runs the doctor as a process. @param more variables beside those of a deployment that works */
export async function examine(more: Environment = {}, { args = ['--json'], input = '' } = {}): Promise<Examination> {
  const child = spawn(process.execPath, ['src/doctor/main.ts', ...args], {
    cwd: PROJECT_ROOT,
    env: { ...(await healthy()), ...more },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  const findings: Finding[] = args.includes('--json') && code !== 2 ? JSON.parse(output).findings : [];
  const found = new Map(findings.map((finding) => [`${finding.area}: ${finding.check}`, finding]));
  const failed = [...found].filter(([, { status }]) => status === 'failed').map(([name]) => name);
  for (const secret of [stack().secrets.jwt, stack().secrets.service]) expect(output).not.toContain(secret);
  return { code, output, found, failed };
}

/** Writes a file for one test and returns its path. */
export function jsonFile(name: string, content: unknown): string {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-doctor-'));
  closeAfter('test', () => rmSync(folder, { recursive: true }));
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify(content));
  return path;
}
