import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { planFile, toolFile, toolRow } from '../support/catalogues.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { agUiClient } from '../support/front-ends/ag-ui-clients.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { isTerminal, seqs, upTo } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';

const RECOVERY_MS = 45_000;

let model: ModelServer;
let stack: StackProcesses;

beforeAll(async () => {
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
  stack = await startStack({
    gateways: 2,
    workers: 1,
    env: { AGENT_MODEL_URL: model.url, AGENT_MODEL_NAME: 'test-model', CATALOGUE_DIR: catalogueFolder() },
  });
});

/** The product's catalogues, with approvals for the basic tools, and with a tool that the user answers. */
function catalogueFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-waiting-'));
  closeAfter('file', () => rmSync(folder, { recursive: true }));
  const basic = { ...toolFile.permissions.basic, approval: true };
  const question = toolRow({ name: 'ask_user', permission: 'monitoring', executor: 'user', units: 0 });
  const tools = { permissions: { ...toolFile.permissions, basic }, tools: [...toolFile.tools, question] };
  const agents = JSON.parse(readFileSync(new URL('../../config/agents.json', import.meta.url), 'utf8'));
  agents.agents[0].tools.push('ask_user');
  for (const [name, content] of Object.entries({ plans: planFile, tools, agents })) {
    writeFileSync(join(folder, `${name}.json`), JSON.stringify(content));
  }
  return folder;
}

const of = (client: TestClient, type: string) => client.events.filter((event) => event.type === type);

describe('a run that waits for its user', () => {
  it('continues with the answers after gateway and worker were killed, over each transport', async () => {
    model.script = ({ body }) => {
      if (body.messages.some(({ role }) => role === 'tool')) return { text: ['Done.'] };
      const question = { message: 'Which one?', choices: ['a', 'b'] };
      return { calls: [{ name: 'list_agents' }, { name: 'ask_user', args: question }] };
    };
    const waiting = [];
    for (const transport of TRANSPORTS) {
      const { token } = mintToken({ plan: 'pro' }, { stack: stack.addresses });
      const client = await openClient({ transport, url: nodeUrl(0, stack.addresses), token });
      const { epoch } = await client.welcome();
      client.send('agent_request', { message: 'Which agents are there?' });
      const requests = [
        (await client.waitFor(({ type, fields }) => type === 'input_requested' && fields.kind === 'approval')).fields,
        (await client.waitFor(({ type, fields }) => type === 'input_requested' && fields.kind === 'choice')).fields,
      ];
      waiting.push({ transport, token, epoch, requests });
    }
    await Promise.all([stack.gateways[0], ...stack.workers].map((one) => one?.kill('SIGKILL')));
    await Promise.all([stack.gateways[0], ...stack.workers].map((one) => one?.start()));

    for (const { transport, token, epoch, requests } of waiting) {
      const client = await openClient({ transport, url: nodeUrl(1, stack.addresses), token });
      await client.welcome();
      client.send('resume', { after: 0, epoch: String(epoch) });
      await client.waitFor('resumed');
      const run_id = String(requests[0]?.run_id);
      client.send('run_status', { run_id });
      const { fields: state } = await client.waitFor('run_status', { timeoutMs: RECOVERY_MS });
      expect(state).toMatchObject({ input_requests: [{ kind: expect.any(String) }, { kind: expect.any(String) }] });
      const [approval, choice] = requests.map((request) => String(request?.input_id));
      client.send('input_response', { run_id, input_id: approval, action: 'accept' });
      client.send('input_response', { run_id, input_id: choice, action: 'accept', content: { choice: 'b' } });
      const end = await client.waitFor(isTerminal, { timeoutMs: RECOVERY_MS });
      expect(end).toMatchObject({ type: 'agent_completed', fields: { final_response: 'Done.' } });
      expect(of(client, 'input_accepted')).toHaveLength(2);
      expect(seqs(client.events)).toEqual(upTo(seqs(client.events).length));
      expect(of(client, 'tool_executing')).toHaveLength(2);
      const results = of(client, 'tool_completed').map(({ fields }) => fields);
      expect(results.map(({ tool_name, success }) => [tool_name, success]).toSorted()).toEqual([
        ['ask_user', true],
        ['list_agents', true],
      ]);
      const answered = results.find(({ tool_name }) => tool_name === 'ask_user');
      expect(answered?.result).toEqual({ action: 'accept', content: { choice: 'b' } });
    }
    // The step that asked is replayed from the journal: two requests per run.
    expect(model.requests).toHaveLength(2 * TRANSPORTS.length);
  }, 120_000);

  it('continues with the result of a tool of the page after gateway and worker were killed, over AG-UI', async () => {
    const before = model.requests.length;
    model.script = ({ body }) => {
      const result = body.messages.find(({ role }) => role === 'tool');
      return result ? { text: [`Here: ${result.content}`] } : { calls: [{ name: 'locate', args: { near: 1 } }] };
    };
    const me = mintToken({ plan: 'pro' }, { stack: stack.addresses });
    const url = (node: number) => `${nodeUrl(node, stack.addresses)}/v1/agui/default`;
    const agent = agUiClient('1.0.0', {
      ...{ url: url(0), token: me.token, threadId: 'thread-1' },
      messages: [{ id: 'message-1', role: 'user', content: 'Where am I?' }],
      tools: [{ name: 'locate', description: 'Where the user is.', parameters: { type: 'object', properties: {} } }],
    });
    await agent.run('run-1');
    const [call = ''] = agent.pendingCalls;
    expect(call).toMatch(/^call_/);
    await Promise.all([stack.gateways[0], ...stack.workers].map((one) => one?.kill('SIGKILL')));
    await Promise.all([stack.gateways[0], ...stack.workers].map((one) => one?.start()));
    agent.addResult(call, 'Oslo');
    agent.url = url(1);
    await agent.run('run-2');
    expect(agent.errorCode).toBeUndefined();
    expect(agent.messages.at(-1)?.content).toBe('Here: {"result":"Oslo"}');
    expect(model.requests).toHaveLength(before + 2);
  }, 120_000);
});
