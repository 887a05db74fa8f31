import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { DevAccess, stateDirOption, urlOption } from './lib/dev-access.ts';
import { PROJECT_ROOT } from './lib/processes.ts';
import { startTokenProxy } from './lib/token-proxy.ts';
import { runScript } from './lib/user-error.ts';

const SUITE = join(PROJECT_ROOT, 'node_modules/@modelcontextprotocol/conformance/dist/index.js');
const REVISIONS = ['2026-07-28', '2025-11-25'];

interface Flags {
  readonly url?: string;
  readonly stateDir: string;
  readonly requirements: string[];
  readonly plan: string;
  readonly scenario?: string;
}

/** Runs the official suite; its results are printed as it prints them, and its files go to a folder that is deleted. */
async function runSuite(args: readonly string[]): Promise<number> {
  const cwd = await mkdtemp(join(tmpdir(), 'tollgate-conformance-'));
  try {
    const child = spawn(process.execPath, [SUITE, 'server', ...args], { cwd, stdio: 'inherit' });
    return await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => resolve(code ?? 1));
    });
  } finally {
    await rm(cwd, { recursive: true, force: true });
  }
}

/**
 * The official MCP conformance suite against a running gateway. The suite cannot log in, so that a proxy on loopback adds
 * the token; the exit code is that of the worst run.
 */
await runScript(async () => {
  const flags = new Command('npm run conformance --')
    .description('Runs the official MCP conformance suite against a running gateway.')
    .addOption(urlOption)
    .option('--requirements <revision...>', 'which revisions of the specification', REVISIONS)
    .option('--scenario <name>', 'one scenario alone, at the version that the suite picks')
    .option('--plan <plan>', 'which demo account asks', 'developer')
    .addOption(stateDirOption)
    .parse()
    .opts<Flags>();
  const access = new DevAccess(flags);
  const proxy = await startTokenProxy(access.gatewayUrl, () => access.userToken(flags.plan));
  try {
    const url = `${proxy.url}/mcp`;
    if (flags.scenario) return await runSuite(['--url', url, '--scenario', flags.scenario, '--verbose']);
    let worst = 0;
    for (const revision of flags.requirements) {
      process.stdout.write(`\n=== requirements of ${revision} ===\n`);
      worst = Math.max(worst, await runSuite(['--url', url, '--requirements', revision]));
    }
    return worst;
  } finally {
    await proxy.close();
  }
});
