import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { freePorts, isPortFree } from '../../scripts/lib/ports.ts';
import { type Exit, httpStatus, ManagedProcess, PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';
import { closeAfter, type Lifetime } from '../support/open-resources.ts';
import { describeWith, HAPROXY } from '../support/programs.ts';
import { until } from '../support/until.ts';

const TIMEOUT_MS = 60_000;
const AGENT_EVENTS = ['agent_started', 'agent_thinking', 'tool_executing', 'tool_completed', 'agent_completed'];

/** Runs a script of this project like a user, without Tollgate variables in the environment. */
function runScript(script: string, args: readonly string[], lifetime: Lifetime = 'test') {
  const inherited = Object.entries(process.env).filter(([name]) => !VARIABLE_NAMES.includes(name));
  const lines: string[] = [];
  const child = new ManagedProcess({
    name: script,
    command: process.execPath,
    args: [`scripts/${script}.ts`, ...args],
    env: Object.fromEntries(inherited),
    onLine: (line) => lines.push(line),
  });
  closeAfter(lifetime, () => child.stop());
  return { child, text: () => lines.join('\n') };
}

async function finished(script: string, args: readonly string[]): Promise<{ exit: Exit; text: string }> {
  const run = runScript(script, args);
  const exit = await run.child.exited;
  return { exit, text: run.text() };
}

async function emptyFolder(lifetime: Lifetime): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-start-'));
  closeAfter(lifetime, () => rm(folder, { recursive: true, force: true }));
  return folder;
}

describe('npm start', () => {
  let start: ReturnType<typeof runScript>;
  let stateDir: string;
  let ports: number[];
  let flags: string[];

  beforeAll(async () => {
    stateDir = await emptyFolder('file');
    ports = await freePorts(4);
    // The two gateways use the first two.
    const [port, , authPort, workerPort] = ports.map(String) as [string, string, string, string];
    flags = ['--port', port, '--auth-port', authPort, '--worker-port', workerPort];
    start = runScript('start', [...flags, '--state-dir', stateDir], 'file');
    const isOver = () => start.text().includes('Tollgate is ready') || !start.child.running;
    await until(isOver, { timeoutMs: TIMEOUT_MS, label: 'npm start' });
  }, TIMEOUT_MS);

  const state = async () => JSON.parse(await readFile(join(stateDir, 'dev.json'), 'utf8'));

  it('prints the addresses, a demo account per plan and its password, and keeps the secrets to the owner', async () => {
    const { demo_password } = await state();
    expect(start.text()).toContain('Tollgate is ready');
    expect(start.text()).toContain(`http://localhost:${ports[0]}/console`);
    for (const plan of ['free', 'pro', 'enterprise', 'developer']) {
      expect(start.text()).toMatch(new RegExp(`${plan} +${plan}@demo.local +${demo_password}`));
    }
    expect((await stat(join(stateDir, 'dev.json'))).mode & 0o777).toBe(0o600);
  });

  it.each(['ws', 'socketio'])(
    'serves npm run chat over %s with five agent events, and npm run bill with the record of its call',
    async (transport) => {
      const message = 'How is my workload doing?';
      const chat = await finished('chat', ['--state-dir', stateDir, '--transport', transport, message]);
      expect(chat.text).toMatch(new RegExp(AGENT_EVENTS.join('[\\s\\S]*')));
      expect(chat.exit).toEqual({ code: 0, signal: null });

      const usageRecordId = /billed as (\S+)/.exec(chat.text)?.[1];
      expect(usageRecordId).toBeDefined();
      const isOnTheBill = async () => {
        const bill = await finished('bill', ['--state-dir', stateDir]);
        return bill.exit.code === 0 && bill.text.includes(`${usageRecordId}`);
      };
      await until(isOnTheBill, { timeoutMs: 10_000, label: `${usageRecordId} on the bill` });
    },
    TIMEOUT_MS,
  );

  it('refuses to run a second time for the same folder', async () => {
    const second = await finished('start', [...flags, '--state-dir', stateDir]);
    expect(second.text).toContain('npm start is already running');
    expect(second.exit.code).toBe(1);
  });

  it('says which port is taken and what to do', async () => {
    const second = await finished('start', [...flags, '--state-dir', await emptyFolder('test')]);
    expect(second.text).toMatch(new RegExp(`Port ${ports[0]}, meant for a gateway, is in use.*--port`));
    expect(second.exit.code).toBe(1);
  });

  it('restarts a gateway that was killed', async () => {
    process.kill(Number(/gateway-1 .*pid (\d+)/.exec(start.text())?.[1]), 'SIGKILL');
    await until(() => start.text().includes('gateway-1 is back'), { timeoutMs: 15_000, label: 'the gateway' });
  });

  it('ends everything on Ctrl-C', async () => {
    const redisPort = Number(new URL((await state()).redis_url).port);
    start.child.kill('SIGINT');
    expect(await start.child.exited).toEqual({ code: 0, signal: null });
    for (const port of [...ports, redisPort]) expect([port, await isPortFree(port)]).toEqual([port, true]);
  });
});

describeWith(HAPROXY, 'npm run cluster', () => {
  it(
    'runs three gateways and two workers behind HAProxy, serves chat and bill, and stops on Ctrl-C',
    async () => {
      const { scripts } = JSON.parse(await readFile(join(PROJECT_ROOT, 'package.json'), 'utf8'));
      const [, given = ''] = / scripts\/start\.ts (.*)$/.exec(scripts.cluster) ?? [];
      const stateDir = await emptyFolder('test');
      const ports = await freePorts(7);
      const [port, , , workerPort, , authPort, balancerPort] = ports.map(String) as [string, ...string[]];
      const at = ['--port', port, '--worker-port', `${workerPort}`, '--auth-port', `${authPort}`];
      const flags = [...given.split(' '), ...at, '--balancer-port', `${balancerPort}`, '--state-dir', stateDir];
      const cluster = runScript('start', flags);
      const isOver = () => cluster.text().includes('Tollgate is ready') || !cluster.child.running;
      await until(isOver, { timeoutMs: TIMEOUT_MS, label: 'npm run cluster' });
      expect(cluster.text()).toContain(`Load balancer http://localhost:${balancerPort}`);

      const { balancer_url, gateway_urls } = JSON.parse(await readFile(join(stateDir, 'dev.json'), 'utf8'));
      expect(balancer_url).toBe(`http://127.0.0.1:${balancerPort}`);
      for (const url of [balancer_url, ...gateway_urls]) expect(await httpStatus(`${url}/health/ready`)).toBe(200);
      const chat = await finished('chat', ['--state-dir', stateDir, 'Hello']);
      expect(chat.exit).toEqual({ code: 0, signal: null });

      cluster.child.kill('SIGINT');
      expect(await cluster.child.exited).toEqual({ code: 0, signal: null });
      for (const one of ports) expect([one, await isPortFree(one)]).toEqual([one, true]);
    },
    TIMEOUT_MS * 2,
  );

  it('refuses another number of gateways than the configuration of HAProxy names', async () => {
    const { exit, text } = await finished('start', [
      '--balancer',
      '--nodes',
      '2',
      '--state-dir',
      await emptyFolder('test'),
    ]);
    expect(text).toContain('--balancer needs --nodes 3');
    expect(exit.code).toBe(1);
  });
});

describe('without npm start', () => {
  it.each(['chat', 'bill'])('npm run %s says what to do', async (script) => {
    const flags = ['--state-dir', await emptyFolder('test')];
    const { exit, text } = await finished(script, [...flags, ...(script === 'chat' ? ['hello'] : [])]);
    expect(exit.code).toBe(1);
    expect(text).toContain('npm start');
    expect(text).not.toContain('    at ');
  });
});
