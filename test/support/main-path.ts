import { expect } from '@jest/globals';
import { startAdmin } from './admin.ts';
import { runToEnd } from './agent-runs.ts';
import { Reports } from './chaos/invariants.ts';
import { openClient, type TestClient, TRANSPORTS, type TransportName } from './clients.ts';
import { billedRecords } from './ledger.ts';
import { nodeUrl } from './nodes.ts';
import { seqs, upTo } from './runs.ts';
import type { StackAddresses } from './stack.ts';
import { buyTicket } from './tickets.ts';
import { login, mintToken, serviceToken } from './tokens.ts';
import { callTool } from './tool-calls.ts';
import { until } from './until.ts';

/**
 * Performs each operation of clients, operators and billing once, so that every kind of Redis proves to support all of
 * them. The stack needs two gateways, a worker, and tokens that are refreshed within seconds.
 */
export async function runMainPath(of: StackAddresses): Promise<void> {
  await Promise.all([...TRANSPORTS.map((transport) => talk(transport, of)), mcp(of), refresh(of), decide(of)]);
  await bill(of);
}

/** Runs, tools and threads of one user, on one node and then on another. */
async function talk(transport: TransportName, of: StackAddresses): Promise<void> {
  const { token, userId } = mintToken({ plan: 'pro' }, { stack: of });
  const client = await openClient({ transport, url: nodeUrl(0, of), token });
  const { epoch } = await client.welcome();
  const { events } = await runToEnd(client, { message: 'How is my workload doing?' });
  expect(events.at(-1)).toMatchObject({ type: 'agent_completed' });
  const created = await callTool(client, 'create_thread', { title: 'A thread' }, { idempotency_key: 'once' });
  expect(created).toMatchObject({ type: 'tool_result', fields: { success: true } });
  const again = await callTool(client, 'create_thread', { title: 'A thread' }, { idempotency_key: 'once' });
  expect(again.fields.tool_call_id).toBe(created.fields.tool_call_id);
  for (const tool of ['system_health', 'get_metrics', 'get_agent_status', 'list_agents']) {
    const { type, fields } = await callTool(client, tool);
    expect({ tool, type, success: fields.success }).toEqual({ tool, type: 'tool_result', success: true });
  }
  client.send('threads_list');
  client.send('usage_summary');
  await client.waitFor('threads_list');
  await client.waitFor('usage_summary');
  await cancel(client);
  const seen = seqs(client.events);
  expect(seen).toEqual(upTo(seen.length));

  const position = transport === 'ws' ? { query: { after: '0', epoch: `${epoch}` } } : { auth: { after: 0, epoch } };
  const other = await openClient({ transport, url: nodeUrl(1, of), token, ...position });
  await other.waitFor('resumed');
  expect(seqs(other.events)).toEqual(seen);
  // Live on both nodes.
  await runToEnd(other, { message: 'Hello' });
  await until(() => client.events.length > 0 && seqs(client.events).length === seqs(other.events).length);
  await until(async () => (await billedRecords(userId, of)).length >= 6, { label: 'the records of the user' });
}

async function cancel(client: TestClient): Promise<void> {
  const request_id = `cancelled-${Math.random()}`;
  client.send('agent_request', { message: 'How is my workload doing?', request_id });
  const { fields } = await client.waitFor(({ type, fields }) => {
    return type === 'agent_accepted' && fields.request_id === request_id;
  });
  client.send('agent_cancel', { run_id: fields.run_id });
  await client.waitFor(({ type, fields: { run_id } }) => {
    return (type === 'agent_cancelled' || type === 'agent_completed') && run_id === fields.run_id;
  });
}

async function mcp(of: StackAddresses): Promise<void> {
  const { token } = mintToken({ plan: 'enterprise' }, { stack: of });
  const ticket = await buyTicket(token, { url: nodeUrl(0, of) });
  const client = await openClient({ path: '/ws/mcp', url: nodeUrl(1, of), query: { ticket } });
  const answer = await client.call('tools/call', { name: 'list_agents', arguments: {} });
  expect(JSON.stringify(answer)).toContain('agents');
}

async function refresh(of: StackAddresses): Promise<void> {
  const { access_token } = await login('enterprise', of);
  const client = await openClient({ url: nodeUrl(1, of), token: access_token });
  await client.waitFor('token_refreshed', { timeoutMs: 20_000 });
}

/** Admin actions reach the connections on both nodes. */
async function decide(of: StackAddresses): Promise<void> {
  const admin = await startAdmin(of);
  const { token, userId } = mintToken({ plan: 'pro' }, { stack: of });
  const clients = await Promise.all([0, 1].map((node) => openClient({ url: nodeUrl(node, of), token })));
  for (const client of clients) await client.welcome();
  expect((await admin('PUT', `/v1/users/${userId}/plan`, { plan: 'free' })).status).toBe(200);
  for (const client of clients) await client.waitFor('plan_changed');
  const connections = await admin('GET', `/v1/users/${userId}/connections`, undefined, 1);
  expect(connections.body.connections).toHaveLength(2);
  expect((await admin('GET', '/v1/nodes')).body.nodes.length).toBeGreaterThanOrEqual(2);
  expect((await admin('POST', '/v1/tokens/revoke', { user_id: userId })).status).toBe(200);
  for (const client of clients) expect(await client.closed).toEqual({ code: 1008, reason: 'TOKEN_REVOKED' });
  expect((await admin('POST', `/v1/users/${userId}/block`)).status).toBe(200);
}

/** Each call is in the ledger once, the chain verifies, and records can be corrected and confirmed. */
async function bill(of: StackAddresses): Promise<void> {
  const records = await billedRecords(undefined, of);
  expect(new Set(records.map(({ id }) => id)).size).toBe(records.length);
  const headers = {
    authorization: `Bearer ${await serviceToken('usage:write usage:read', { stack: of })}`,
    'content-type': 'application/json',
    'idempotency-key': 'a-correction',
  };
  const ask = async (method: string, path: string, body: unknown) => {
    const response = await fetch(new URL(path, nodeUrl(0, of)), { method, headers, body: JSON.stringify(body) });
    return { status: response.status, body: await response.json() };
  };
  const corrected = records.find(({ units }) => Number(units) > 0);
  const correction = { record_id: corrected?.id, sequence: corrected?.sequence, units: -1, reason: 'a test' };
  expect((await ask('POST', '/v1/usage/corrections', correction)).status).toBeLessThan(300);
  const feed = await fetch(new URL('/v1/usage/records?limit=1', nodeUrl(0, of)), { headers });
  const { next_cursor } = (await feed.json()) as { next_cursor: string };
  expect((await ask('PUT', '/v1/usage/cursors/test', { cursor: next_cursor })).status).toBeLessThan(300);
  const reports = await Reports.open(of, new Date(Date.now() - 3_600_000));
  const isProven = async () => {
    const proof = await reports.verify();
    return proof.ok && proof.unsettled.length === 0 && proof.checked_records > records.length;
  };
  await until(isProven, { label: 'the proof of the ledger' });
}
