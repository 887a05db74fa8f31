import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { ManagedProcess, PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';
import { closeAfter } from '../support/open-resources.ts';

const TIMEOUT_MS = 180_000;
const DOCS = readFileSync(join(PROJECT_ROOT, 'docs/mcp.md'), 'utf8');
/** Input requests of the older era over a connection, which are not supported: see docs/mcp.md. */
const INPUT_REQUESTS = /^(tools-call-(sampling|elicitation)$|elicitation-)/;
const OTHERS_RED = ['logging-set-level', 'tools-call-with-logging', 'resources-subscribe', 'resources-unsubscribe'];

/** Returns the output of `npm run conformance` with a private deployment, independent of the shell's environment. */
async function runConformance(): Promise<string> {
  const lines: string[] = [];
  const inherited = Object.entries(process.env).filter(([name]) => !VARIABLE_NAMES.includes(name));
  const child = new ManagedProcess({
    name: 'conformance',
    command: process.execPath,
    args: ['scripts/conformance.ts'],
    env: Object.fromEntries(inherited),
    onLine: (line) => lines.push(line),
  });
  closeAfter('file', () => child.stop());
  await child.exited;
  return lines.join('\n');
}

describe('the official MCP conformance suite, with its fixtures as an upstream server', () => {
  let output = '';

  beforeAll(async () => {
    output = await runConformance();
  }, TIMEOUT_MS);

  it.each(['2026-07-28', '2025-11-25'])('passes for %s, but for what docs/mcp.md says', (revision) => {
    const [, ofRevision = output] = output.split(`=== requirements of ${revision} ===`);
    const summary = ofRevision.split('=== requirements of ')[0]?.split('=== SUMMARY ===')[1] ?? output;
    const unscored = [...summary.matchAll(/^ {2}[✓✗] (\S+) \(/gm)].map(([, name]) => name);
    const all = [...summary.matchAll(/^([✓✗]) (\S+): \d+ passed/gm)];
    const scored = all.filter(([, , name]) => !unscored.includes(name));
    const red = scored.filter(([, mark]) => mark === '✗').map(([, , name = '']) => name);
    expect(red.filter((name) => !INPUT_REQUESTS.test(name) && !OTHERS_RED.includes(name))).toEqual([]);
    const passed = `${scored.length - red.length} of ${scored.length}`;
    expect([passed, DOCS.includes(`| ${revision}   | ${passed} `)]).toEqual([passed, true]);
  });
});
