import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type BrowserContext, chromium } from 'playwright-core';
import { stagePackages } from '../../scripts/lib/packages.ts';
import { freePort } from '../../scripts/lib/ports.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { CHROMIUM, describeWith, isInstalled, PYTHON_CLIENTS } from '../support/programs.ts';
import { type StackProcesses, stack, startStack } from '../support/stack.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const EXAMPLES = join(PROJECT_ROOT, 'examples');
const INSTALLED = [
  '.bin',
  '@esbuild',
  '@modelcontextprotocol',
  'esbuild',
  'react',
  'react-dom',
  'scheduler',
  'socket.io-client',
];
/** Tests of their own: agents, and pages of other front ends. Artillery is not installed here as a rule. */
const TESTED_ELSEWHERE = new Set(['agents', 'ai-sdk-chat', 'artillery', 'copilotkit-chat']);

let root: string;
/** Installs what the examples name in their package.json: our packages, and those of this repository. */
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'tollgate-examples-'));
  cpSync(EXAMPLES, root, { recursive: true, filter: (path) => !path.endsWith('node_modules') });
  stagePackages(join(root, 'node_modules/@tollgate'));
  for (const name of INSTALLED) {
    const target = join(root, 'node_modules', name);
    mkdirSync(dirname(target), { recursive: true });
    symlinkSync(join(PROJECT_ROOT, 'node_modules', name), target);
  }
  for (const name of exampleNames()) symlinkSync(join(root, 'node_modules'), join(root, name, 'node_modules'));
}, 60_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

function exampleNames(): string[] {
  const entries = readdirSync(EXAMPLES, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/** Returns the commands of an example's README: its indented lines, without `npm install`. */
function commandsOf(example: string): string[] {
  const text = readFileSync(join(EXAMPLES, example, 'README.md'), 'utf8');
  const lines = text.split('\n').filter((line) => /^ {4}\S/.test(line));
  return lines.map((line) => line.trim()).filter((line) => !/^npm install$| pip install /.test(line));
}

interface Running {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly ended: Promise<number | null>;
}

/** Starts a command as it is written, in the folder of its example. */
function start(example: string, command: string, env: Record<string, string | undefined> = {}): Running {
  const bin = join(PROJECT_ROOT, 'node_modules/.bin');
  const child = spawn('sh', ['-c', `exec ${command}`], {
    cwd: join(root, example),
    env: {
      ...process.env,
      NODE_OPTIONS: '',
      PATH: `${bin}:${process.env.PATH}`,
      TOLLGATE_URL: stack().gateways[0]?.url,
      ...env,
    },
  });
  closeAfter('test', () => void child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
  return { child, output: () => output, ended: new Promise((resolve) => child.once('close', resolve)) };
}

/** Runs all commands of an example, one after the other. @returns their outputs */
async function runAll(example: string, env: Record<string, string | undefined>): Promise<string[]> {
  const outputs: string[] = [];
  for (const command of commandsOf(example)) {
    const { ended, output } = start(example, command, env);
    const code = await ended;
    if (code !== 0) throw new Error(`${command} ended with ${code}:\n${output()}`);
    outputs.push(output());
  }
  return outputs;
}

const user = () => ({ TOLLGATE_TOKEN: mintToken({ plan: 'developer' }).token });

describe('every example', () => {
  it('is listed, has a README of about ten lines with commands, and is run by a test', () => {
    const listed = [...readFileSync(join(EXAMPLES, 'README.md'), 'utf8').matchAll(/^\| \[([\w-]+)\]/gm)];
    expect(listed.map(([, name]) => name).sort()).toEqual(exampleNames().sort());
    const source = readFileSync(import.meta.filename, 'utf8');
    for (const name of exampleNames().filter((example) => !TESTED_ELSEWHERE.has(example))) {
      expect(commandsOf(name).length).toBeGreaterThan(0);
      expect(readFileSync(join(EXAMPLES, name, 'README.md'), 'utf8').split('\n').length).toBeLessThanOrEqual(14);
      expect(source).toContain(`'${name}'`);
    }
  });
});

describe('an example runs as its README says', () => {
  it('node-bot', async () => {
    const [events, call] = await runAll('node-bot', user());
    expect(events).toContain('analyze_workload took');
    expect(call).toMatch(/^succeeded/);
  }, 30_000);

  it('socketio-legacy', async () => {
    const [events] = await runAll('socketio-legacy', user());
    expect(events).toMatch(/^agent_started[\s\S]*\nagent_completed .+\n$/);
  });

  it('mcp-client', async () => {
    const [output] = await runAll('mcp-client', user());
    expect(output).toMatch(/analyze_workload[\s\S]*\nsucceeded /);
  });

  it('billing-puller', async () => {
    const env = { TOLLGATE_SERVICE_TOKEN: await serviceToken('usage:read') };
    const [first = ''] = await runAll('billing-puller', env);
    expect(first).toMatch(/^\d+ records\n$/);
    const ledger = join(root, 'billing-puller/ledger.jsonl');
    const before = readFileSync(ledger, 'utf8');
    await runAll('billing-puller', env);
    expect(readFileSync(ledger, 'utf8').startsWith(before)).toBe(true);
    const pages = readFileSync(ledger, 'utf8').trimEnd().split('\n').filter(Boolean);
    const sequences = pages.flatMap((line) =>
      JSON.parse(line).records.map((record: { sequence: number }) => record.sequence),
    );
    expect(sequences).toEqual(sequences.map((_: number, index: number) => sequences[0] + index));
  });

  it('mobile-background', async () => {
    const [asked, opened] = await runAll('mobile-background', user());
    expect(asked).toMatch(/^started run_/);
    expect(opened).toMatch(/^completed .+/m);
  });
});

describeWith(PYTHON_CLIENTS, 'an example in Python runs as its README says', () => {
  it('python-notebook', async () => {
    // Debian's Python, which has the packages.
    const env = { PYTHONPATH: join(PROJECT_ROOT, 'packages/python/src'), PATH: '/usr/bin:/bin' };
    const [output] = await runAll('python-notebook', { ...user(), ...env });
    expect(output).toMatch(/analyze_workload - [\s\S]*calls today/);
  });
});

describeWith(CHROMIUM, 'an example in a browser runs as its README says', () => {
  let port: number;
  let processes: StackProcesses;
  let context: BrowserContext;
  beforeAll(async () => {
    port = await freePort();
    processes = await startStack({ gateways: 1, workers: 1, env: { CORS_ORIGINS: `http://localhost:${port}` } });
    const browser = await chromium.launch({ executablePath: CHROMIUM.command, args: ['--no-sandbox'] });
    closeAfter('file', () => browser.close());
    context = await browser.newContext();
  }, 60_000);
  const gateway = () => processes.addresses.gateways[0]?.url ?? '';
  const token = () => mintToken({}, { stack: processes.addresses }).token;

  /** Starts the server of an example on the port of this test, and opens its page. */
  async function open(example: string, query = '') {
    const [command = ''] = commandsOf(example);
    const running = start(example, command.replace('5173', String(port)), { PORT: String(port) });
    await until(async () => (await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined))?.ok === true);
    const page = await context.newPage();
    await page.goto(`http://localhost:${port}/${query}`);
    return { page, running };
  }

  it('browser-chat', async () => {
    const { page, running } = await open('browser-chat');
    await page.fill('[name=url]', gateway());
    await page.fill('[name=token]', token());
    await page.fill('[name=message]', 'How is my workload doing?');
    await page.click('button');
    await until(async () => (await page.textContent('#answer')) !== '');
    expect(await page.locator('li').first().textContent()).toMatch(/^agent_started/);
    running.child.kill();
    await running.ended;
  });

  it('react-chat', async () => {
    const query = new URLSearchParams({ url: gateway(), token: token() });
    const { page } = await open('react-chat', `?${query}`);
    for (const messages of [2, 4]) {
      await page.fill('[name=message]', 'How is my workload doing?');
      await page.click('button');
      await until(async () => (await page.locator('li').count()) === messages);
    }
    expect(await page.locator('li.assistant').count()).toBe(2);
  });
});

const ARTILLERY = {
  command: 'artillery',
  versionArgs: ['--version'],
  install: 'npm install --global artillery@2.0.34',
};
(isInstalled(ARTILLERY) ? describe : describe.skip)('an example with Artillery runs as its README says', () => {
  it('artillery', async () => {
    // `npx` finds what the example's `npm install` would install.
    const [command = ''] = commandsOf('artillery');
    const { ended, output } = start('artillery', command.replace('npx ', ''), user());
    expect(await ended).toBe(0);
    expect(output()).toMatch(/vusers\.completed: \.+ 3\b/);
  }, 60_000);
});
