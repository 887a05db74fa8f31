import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { catalogueFolder, planFile, toolFile } from '../support/catalogues.ts';
import { openClient } from '../support/clients.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { isTerminal } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { mintToken } from '../support/tokens.ts';

/** Their packages have 180 MB: installed by `npm run test:front-ends` only. */
const describeInLongForm = process.env.FRONT_ENDS === undefined ? describe.skip : describe;
const SECRET = 'the secret that agent and worker share';
const reference = (name: string) => `\${${name}}`;

/** Installs an example in a folder of its own, starts it, and returns its address. */
async function start(name: string, env: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `tollgate-${name}-`));
  closeAfter('file', () => rm(folder, { recursive: true }));
  await cp(join(PROJECT_ROOT, 'examples/agents', name), folder, { recursive: true });
  await promisify(execFile)('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts'], { cwd: folder });
  const child = spawn(process.execPath, ['agent.mjs'], {
    cwd: folder,
    env: { PATH: process.env.PATH, PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  closeAfter('file', async () => {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return `http://127.0.0.1:${/^listening on (\d+)$/.exec(line)?.[1]}/`;
}

describeInLongForm('the example agent of a framework', () => {
  let stack: StackProcesses;
  let model: ModelServer;

  beforeAll(async () => {
    model = await ModelServer.start();
    closeAfter('file', () => model.close());
    // The agents need the address of the gateway before it starts.
    const gateway = await TcpProxy.start('http://127.0.0.1:1');
    const langgraph = await start('langgraph', { AGENT_KEY: SECRET });
    const openai = await start('openai-agents', {
      ...{ AGENT_SECRET: SECRET, MODEL_URL: model.url, MODEL_KEY: 'key', MODEL_NAME: 'test-model' },
    });
    const agents = [
      {
        ...{ name: 'langgraph', description: 'Books trips.', kind: 'agui', url: langgraph, tools: [] },
        headers: { authorization: `Bearer ${reference('AGENT_KEY')}` },
      },
      {
        ...{ name: 'openai', description: 'Answers.', kind: 'http', url: openai, tools: ['list_agents'] },
        ...{ secret: reference('AGENT_SECRET'), mcp_url: `${gateway.url.replace('redis:', 'http:')}/mcp` },
      },
    ];
    const files = { 'plans.json': planFile, 'tools.json': toolFile, 'agents.json': { default: 'openai', agents } };
    const env = { CATALOGUE_DIR: catalogueFolder(files, 'file'), AGENT_SECRET: SECRET, AGENT_KEY: SECRET };
    stack = await startStack({ gateways: 1, workers: 1, env });
    gateway.redirect(nodeUrl(0, stack.addresses));
  }, 600_000);

  async function ask(agent: string) {
    const { token } = mintToken({}, { stack: stack.addresses });
    const client = await openClient({ transport: 'ws', url: nodeUrl(0, stack.addresses), token });
    await client.welcome();
    client.send('agent_request', { message: 'Book a trip.', agent });
    return client;
  }

  it('LangGraph asks the user by an interrupt, and continues its graph with the answer', async () => {
    const client = await ask('langgraph');
    const { fields } = await client.waitFor(({ type }) => type === 'input_requested');
    expect(fields).toMatchObject({ kind: 'form', message: 'Which city?' });
    const { run_id, input_id } = fields;
    client.send('input_response', { run_id, input_id, action: 'accept', content: { answer: 'Oslo' } });
    const end = await client.waitFor(isTerminal);
    expect(end.fields).toMatchObject({ status: 'completed', final_response: 'The trip is booked.' });
  });

  it('OpenAI agents SDK calls a tool of Tollgate for the user, and answers', async () => {
    model.script = ({ body }) => {
      if (body.messages.some(({ role }) => role === 'tool')) return { text: ['All ', 'agents.'] };
      return { calls: [{ name: 'list_agents' }] };
    };
    const client = await ask('openai');
    const end = await client.waitFor(isTerminal);
    expect(end.fields).toMatchObject({ status: 'completed', final_response: 'All agents.' });
    expect(client.events.filter(({ type }) => type === 'tool_completed')).toMatchObject([
      { fields: { tool_name: 'list_agents', success: true } },
    ]);
  });
});
