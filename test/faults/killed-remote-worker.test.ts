import type { ServerResponse } from 'node:http';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { A2aServer } from '../support/a2a-server.ts';
import { AgentServer } from '../support/agent-server.ts';
import { catalogueFolder, planFile, toolFile } from '../support/catalogues.ts';
import { openClient, type TestClient } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { requestLegacy } from '../support/mcp.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { ResponsesServer } from '../support/responses-server.ts';
import { isTerminal } from '../support/runs.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Guarantee: 45 s from the worker's death. */
const RECOVERY_MS = 45_000;
const SECRET = 'the secret of an agent on loopback';

let http: AgentServer;
let agui: AgentServer;
let responses: ResponsesServer;
let a2a: A2aServer;
let stack: StackProcesses;

/** A stream that has begun and does not end. */
const begin = (response: ServerResponse, type: string, text: string) => {
  response.writeHead(200, { 'content-type': type });
  response.write(text);
};
const sse = (value: object) => `data: ${JSON.stringify(value)}\n\n`;

beforeAll(async () => {
  http = await AgentServer.start();
  agui = await AgentServer.start();
  responses = await ResponsesServer.start();
  a2a = await A2aServer.start();
  for (const server of [http, agui, responses.server, a2a.server]) closeAfter('file', () => server.close());
  const row = (name: string, more: object) => ({ name, description: name, timeout_seconds: 120, ...more });
  // The port of the gateway is not known yet, so the agent of the test replaces it.
  const secret = '$' + '{AGENT_SECRET}';
  const tools = { tools: ['list_agents'], mcp_url: 'http://127.0.0.1:1/mcp' };
  const agents = [
    row('http_agent', { kind: 'http', url: http.url, secret, ...tools }),
    row('http_repeatable', { kind: 'http', url: http.url, secret, repeatable: true }),
    row('agui_agent', { kind: 'agui', url: agui.url }),
    row('responses_agent', { kind: 'responses', url: responses.url }),
    row('a2a_agent', { kind: 'a2a', url: `${a2a.server.origin}/rpc` }),
  ];
  const files = { 'plans.json': planFile, 'tools.json': toolFile, 'agents.json': { default: 'http_agent', agents } };
  const env = { CATALOGUE_DIR: catalogueFolder(files, 'file'), AGENT_SECRET: SECRET };
  stack = await startStack({ gateways: 1, workers: 1, env });
});

async function start(agent: string): Promise<{ readonly client: TestClient; readonly userId: string }> {
  const { token, userId } = mintToken({}, { stack: stack.addresses });
  const client = await openClient({ transport: 'ws', url: nodeUrl(0, stack.addresses), token });
  await client.welcome();
  client.send('agent_request', { message: 'Go.', agent });
  return { client, userId };
}

/** Calls a method of MCP as the agent does, with the token of its run. */
function mcp(token: string, method: string, params: object = {}) {
  return requestLegacy(method, { ...params }, { url: nodeUrl(0, stack.addresses), token });
}

describe('the token of a run', () => {
  it('calls the tools of the agent for the user, in the events of the run and on the bill, until the run ends', async () => {
    let finish: () => void = () => undefined;
    http.serve = (_request, response) => {
      begin(response, 'application/x-ndjson', '{"type":"text","delta":"Two."}\n');
      finish = () => void response.end('{"type":"done"}\n');
    };
    const { client, userId } = await start('http_agent');
    await client.waitFor(({ type }) => type === 'agent_thinking');
    const access = http.requests.at(-1)?.body.tools;
    const { token, names } = access as { readonly token: string; readonly names: readonly string[] };
    expect(names).toEqual(['list_agents']);
    const listed = await mcp(token, 'tools/list');
    expect(listed.body.result.tools.map(({ name }: { name: string }) => name)).toEqual(['list_agents']);
    const called = await mcp(token, 'tools/call', { name: 'list_agents', arguments: {} });
    expect(called.body.result.isError ?? false).toBe(false);
    const refused = await mcp(token, 'tools/call', { name: 'system_health', arguments: {} });
    expect(refused.body.error.data.code).toBe('TOOL_NOT_FOUND');

    const completed = await client.waitFor(({ type }) => type === 'tool_completed');
    const started = client.events.find(({ type }) => type === 'agent_started');
    const { run_id, thread_id } = started?.fields ?? {};
    expect(completed.fields).toMatchObject({ tool_name: 'list_agents', run_id, thread_id, agent_name: 'http_agent' });
    finish();
    await client.waitFor(isTerminal);
    expect((await mcp(token, 'tools/list')).status).toBe(401);
    const forged = `${token.slice(0, -2)}${token.endsWith('A') ? 'B' : 'A'}A`;
    expect((await mcp(forged, 'tools/list')).status).toBe(401);
    // It is a credential of this endpoint only.
    const ticket = await fetch(`${nodeUrl(0, stack.addresses)}/v1/tickets`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    });
    expect(ticket.status).toBeGreaterThanOrEqual(400);
    await until(async () => (await billedRecords(userId, stack.addresses)).length === 2, { timeoutMs: 15_000 });
    const records = await billedRecords(userId, stack.addresses);
    expect(records.map(({ tool, run_id: run }) => [tool, run])).toEqual([
      ['list_agents', run_id],
      ['agent:http_agent', run_id],
    ]);
  });
});

describe('a worker that is killed during the turns of remote agents', () => {
  it('leaves them to the next, which continues those that can be continued and repeats none by itself', async () => {
    let killed = false;
    http.serve = (_request, response) => {
      if (killed) return void response.end('{"type":"text","delta":"Again."}\n{"type":"done"}\n');
      begin(response, 'application/x-ndjson', '{"type":"text","delta":"Half."}\n');
    };
    agui.serve = (_request, response) => {
      begin(response, 'text/event-stream', sse({ type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta: 'Half.' }));
    };
    responses.reset({ text: ['A', 'B', 'C', 'D'] });
    const { serve } = responses.server;
    responses.server.serve = (request, response, at) => {
      if (request.method === 'GET') return serve(request, response, at);
      begin(response, 'text/event-stream', responses.events.slice(0, 6).map(sse).join(''));
    };
    a2a.reset({ text: ['A', 'B', 'C', 'D'], holdAt: 2 });
    http.requests.length = 0;

    const names = ['http_agent', 'http_repeatable', 'agui_agent', 'responses_agent', 'a2a_agent'];
    const started = await Promise.all(names.map(start));
    await Promise.all(started.map(({ client }) => client.waitFor(({ type }) => type === 'agent_thinking')));
    const [worker] = stack.workers;
    await worker?.kill('SIGKILL');
    killed = true;
    await worker?.start();
    const taken = until(() => a2a.methods.includes('SubscribeToTask'), { timeoutMs: RECOVERY_MS }).then(() =>
      a2a.release(),
    );
    const ends = await Promise.all(started.map(({ client }) => client.waitFor(isTerminal, { timeoutMs: RECOVERY_MS })));
    await taken;
    const outcomes = Object.fromEntries(ends.map(({ fields }, at) => [names[at], fields]));
    expect(outcomes).toMatchObject({
      http_agent: { error: { code: 'AGENT_INTERRUPTED' } },
      http_repeatable: { final_response: 'Again.' },
      agui_agent: { error: { code: 'AGENT_INTERRUPTED' } },
      responses_agent: { final_response: 'ABCD' },
      a2a_agent: { final_response: 'ABCD' },
    });
    const texts = started.map(({ client }) => client.events.map(({ fields }) => fields.thought ?? '').join(''));
    expect(texts).toEqual(['Half.', 'Half.Again.', 'Half.', 'ABCD', 'ABCD']);
    expect(started.map(({ client }) => client.events.filter(isTerminal).length)).toEqual([1, 1, 1, 1, 1]);
    // One turn each, and the repeatable one once more.
    expect(http.requests).toHaveLength(3);
    expect(agui.requests).toHaveLength(1);
    expect(responses.created).toBe(1);
    expect(a2a.methods.filter((method) => method.startsWith('Send'))).toHaveLength(1);
  }, 90_000);
});
