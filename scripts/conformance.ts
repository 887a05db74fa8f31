import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import { Closers } from '../src/lib/closers.ts';
import { conformanceFixture, fixtureServers } from './lib/conformance-fixture.ts';
import { DevAccess, stateDirOption, urlOption } from './lib/dev-access.ts';
import { DevDeployment } from './lib/dev-deployment.ts';
import { serveMcp } from './lib/mcp-http.ts';
import { freePorts } from './lib/ports.ts';
import { PROJECT_ROOT } from './lib/processes.ts';
import { Steps } from './lib/steps.ts';
import { startTokenProxy } from './lib/token-proxy.ts';
import { runScript, UserError } from './lib/user-error.ts';

const SUITE = join(PROJECT_ROOT, 'node_modules/@modelcontextprotocol/conformance/dist/index.js');
const FIXTURE_TIMEOUT_MS = 20_000;
const LOOK_AGAIN_MS = 200;
const REVISIONS = ['2026-07-28', '2025-11-25'];

interface Flags {
  readonly url?: string;
  readonly stateDir: string;
  readonly requirements: string[];
  readonly plan: string;
  readonly scenario?: string;
}

/** Runs the official suite, prints its output unchanged, and deletes the folder of its result files. */
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

interface Target {
  readonly access: DevAccess;
  close(): Promise<void>;
}

/** Starts a private gateway with the tool server that the suite's scenarios expect. */
async function startTarget(): Promise<Target> {
  const closers = new Closers();
  try {
    const stateDir = await mkdtemp(join(tmpdir(), 'tollgate-conformance-'));
    closers.add('the folder', () => rm(stateDir, { recursive: true, force: true }));
    const fixture = await serveMcp(conformanceFixture);
    closers.add('the fixture', () => fixture.close());
    const file = join(stateDir, 'tool-servers.json');
    await writeFile(file, JSON.stringify(fixtureServers(fixture.url)));
    const [port = 0, authPort = 0, workerPort = 0] = await freePorts(3);
    const own = { nodes: 1, workers: 1, port, authPort, workerPort, balancerPort: undefined, stateDir, verbose: false };
    const deployment = new DevDeployment(
      { ...own, env: { ...process.env, TOOL_SERVERS: file } },
      new Steps(process.stdout),
    );
    closers.add('the installation', () => deployment.stop());
    await deployment.start();
    return { access: new DevAccess({ stateDir, url: undefined }), close: () => closers.close() };
  } catch (error) {
    await closers.close();
    throw error;
  }
}

/** Waits until the gateway has fetched the capabilities of the fixture, without which there is nothing to test. */
async function resourcesFixture(url: string): Promise<void> {
  const deadline = Date.now() + FIXTURE_TIMEOUT_MS;
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' });
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  while (Date.now() < deadline) {
    const signal = AbortSignal.timeout(FIXTURE_TIMEOUT_MS);
    const answer = await (await fetch(url, { method: 'POST', headers, body, signal })).text();
    if (answer.includes('test_simple_text')) return;
    await delay(LOOK_AGAIN_MS);
  }
  throw new UserError('The gateway does not offer the tools of the fixture.');
}

/**
 * Runs the official MCP conformance suite against a gateway. The suite cannot log in, so a proxy on loopback adds the
 * token. The exit code is that of the worst run.
 */
await runScript(async () => {
  const flags = new Command('npm run conformance --')
    .description('Runs the official MCP conformance suite against a private gateway, or the one of --url.')
    .addOption(urlOption.default(undefined, 'a private gateway with a fixture as upstream server'))
    .option('--requirements <revision...>', 'revisions of the specification', REVISIONS)
    .option('--scenario <name>', 'a single scenario, at the version that the suite selects')
    .option('--plan <plan>', 'plan of the demo account', 'developer')
    .addOption(stateDirOption)
    .parse()
    .opts<Flags>();
  const closers = new Closers();
  try {
    const target = flags.url === undefined ? await startTarget() : undefined;
    if (target) closers.add('the gateway', () => target.close());
    const access = target?.access ?? new DevAccess(flags);
    const proxy = await startTokenProxy(access.gatewayUrl, () => access.userToken(flags.plan));
    closers.add('the proxy', () => proxy.close());
    const url = `${proxy.url}/mcp`;
    if (target) await resourcesFixture(url);
    if (flags.scenario) return await runSuite(['--url', url, '--scenario', flags.scenario, '--verbose']);
    let worst = 0;
    for (const revision of flags.requirements) {
      process.stdout.write(`\n=== requirements of ${revision} ===\n`);
      worst = Math.max(worst, await runSuite(['--url', url, '--requirements', revision]));
    }
    return worst;
  } finally {
    await closers.close();
  }
});
