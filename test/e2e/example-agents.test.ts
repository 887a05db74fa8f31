import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { catalogueFolder, planFile, toolFile } from '../support/catalogues.ts';
import { openClient } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { isTerminal } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const SECRET = 'the secret that agent and worker share';
const EXAMPLES = {
  typescript: [process.execPath, 'agent.ts'],
  python: ['python3', 'agent.py'],
} as const;
type Example = keyof typeof EXAMPLES;
const NAMES = Object.keys(EXAMPLES) as Example[];

let stack: StackProcesses;

beforeAll(async () => {
  // The agents need the address of the gateway before it starts.
  const gateway = await TcpProxy.start('http://127.0.0.1:1');
  const agents = await Promise.all(
    NAMES.map(async (name) => ({
      name,
      description: name,
      kind: 'http',
      url: `http://127.0.0.1:${await startExample(name)}/`,
      secret: '$' + '{AGENT_SECRET}',
      tools: ['list_agents'],
      mcp_url: `${gateway.url.replace('redis:', 'http:')}/mcp`,
    })),
  );
  const files = { 'plans.json': planFile, 'tools.json': toolFile, 'agents.json': { default: 'typescript', agents } };
  const env = { CATALOGUE_DIR: catalogueFolder(files, 'file'), AGENT_SECRET: SECRET };
  stack = await startStack({ gateways: 1, workers: 1, env });
  gateway.redirect(nodeUrl(0, stack.addresses));
});

/** Starts an example and returns its port. */
async function startExample(name: Example): Promise<string> {
  const [command, ...args] = EXAMPLES[name];
  const child: ChildProcess = spawn(command, args, {
    cwd: join(PROJECT_ROOT, 'examples/agents', name),
    env: { PATH: process.env.PATH, AGENT_SECRET: SECRET, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  closeAfter('file', async () => {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  });
  if (!child.stdout) throw new Error('the example has no output');
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return /^listening on (\d+)$/.exec(line)?.[1] ?? line;
}

describe('the example agent in', () => {
  it.each(NAMES)('%s answers a run, and calls a tool of Tollgate for the user', async (agent) => {
    const { token, userId } = mintToken({}, { stack: stack.addresses });
    const client = await openClient({ transport: 'ws', url: nodeUrl(0, stack.addresses), token });
    await client.welcome();
    client.send('agent_request', { message: 'Good morning.', agent });
    const end = await client.waitFor(isTerminal);
    expect(end.fields).toMatchObject({ status: 'completed' });
    expect(end.fields.final_response).toMatch(/^You said: Good morning\. Agents: .*typescript/);
    await until(async () => (await billedRecords(userId, stack.addresses)).length === 2, { timeoutMs: 15_000 });
    const records = await billedRecords(userId, stack.addresses);
    expect(records.map(({ tool }) => tool)).toEqual(['list_agents', `agent:${agent}`]);
  });

  it.each(NAMES)('%s refuses a request without a valid signature', async (agent) => {
    const port = await startExample(agent);
    const body = JSON.stringify({ message: 'x', tools: null });
    for (const signature of ['', 't=1,v1=00', `t=${Math.floor(Date.now() / 1_000)},v1=${'0'.repeat(64)}`]) {
      const headers = { 'tollgate-signature': signature };
      const { status } = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', headers, body });
      expect(status).toBe(401);
    }
  });
});
