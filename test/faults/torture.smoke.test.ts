import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from '@jest/globals';
import { ManagedProcess } from '../../scripts/lib/processes.ts';
import { closeAfter } from '../support/open-resources.ts';

/** About 20 s on a quiet machine: the start of the processes, 6 s of faults, recovery. */
const TIMEOUT_MS = 150_000;
/** The kinds, each once at a moment that the seed chooses; they overlap. */
const KINDS = 'gateway-kill,worker-block,redis-restart,link-half-open,descriptors,keys-rotated';
const SEED = 104;
const FAULTS = 6;

it(
  'npm run torture breaks a deployment at random moments, finds every promise kept, and reports that',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tollgate-smoke-'));
    closeAfter('test', () => rm(folder, { recursive: true, force: true }));
    const out = join(folder, 'report.html');
    const size = [
      '--seed',
      String(SEED),
      '--minutes',
      '0.1',
      '--users',
      '2',
      '--faults',
      '1',
      '--no-balancer',
      '--only',
      KINDS,
    ];
    const lines: string[] = [];
    const child = new ManagedProcess({
      name: 'torture',
      command: process.execPath,
      args: ['torture/main.ts', ...size, '--out', out, '--history', folder],
      env: process.env,
      onLine: (line) => lines.push(line),
    });
    closeAfter('test', () => child.stop());
    const { code } = await child.exited;
    const text = lines.join('\n');
    expect(text).toContain(`Seed ${SEED}: 0 violations.`);
    expect(code).toBe(0);
    const [, counts = '{}'] = /violations\. (\{.*\})/.exec(text) ?? [];
    const { faults, operations, events, records } = JSON.parse(counts);
    expect(faults).toBe(FAULTS);
    expect(Object.keys(operations)).toEqual(expect.arrayContaining(['run', 'chat', 'tool', 'usage']));
    expect(operations.run.ok).toBeGreaterThan(10);
    expect(operations.tool.ok).toBeGreaterThan(10);
    expect([events > 100, records > 10]).toEqual([true, true]);

    const report = await readFile(out, 'utf8');
    expect(report).toContain('every promise kept');
    expect(report).not.toMatch(/<script|<link|src=|url\(|https?:\/\//);
  },
  TIMEOUT_MS,
);
