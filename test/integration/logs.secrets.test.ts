import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { startAdmin } from '../support/admin.ts';
import { runToEnd } from '../support/agent-runs.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { silentLogger } from '../support/core.ts';
import { legacyClient, requestLegacy, requestModern } from '../support/mcp.ts';
import { ModelServer } from '../support/model-server.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { OtlpCollector } from '../support/otlp-collector.ts';
import { contentsOf } from '../support/redis-contents.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { buyTicket } from '../support/tickets.ts';
import { login, mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

/** One word per place where a client or a model can put one. No line of any process at any level may contain one. */
const TEXTS = {
  message: 'sentinel-of-the-message',
  argument: 'sentinel-of-the-argument',
  argumentName: 'sentinel-of-the-argument-name',
  toolName: 'sentinel-of-the-tool-name',
  messageType: 'sentinel-of-the-message-type',
  badFrame: 'sentinel-of-the-bad-frame',
  badToken: 'sentinel-of-the-bad-token',
  model: 'sentinel-of-the-model',
  mcpMethod: 'sentinel-of-the-mcp-method',
  query: 'sentinel-of-the-query',
  password: 'sentinel-of-the-password',
  email: 'sentinel-of-the-address@example.test',
  modelKey: 'sentinel-of-the-model-key',
} as const;

let stack: StackProcesses;
let model: ModelServer;
let collector: OtlpCollector;
/** Its token expires so soon that it is refreshed during the other tests. */
let refreshed: TestClient;
const lines: string[] = [];
/** Used tokens and user ids. */
const secrets: string[] = Object.values(TEXTS);

beforeAll(async () => {
  collector = await OtlpCollector.start();
  model = await ModelServer.start();
  closeAfter('file', () => model.close());
  stack = await startStack({
    onLine: (line) => lines.push(line),
    env: {
      LOG_LEVEL: 'trace',
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_BSP_SCHEDULE_DELAY: '100',
      AGENT_MODEL_URL: model.url,
      AGENT_MODEL_NAME: 'test-model',
      AGENT_MODEL_KEY: TEXTS.modelKey,
      MESSAGE_RATE_PER_MINUTE: '1000',
      ACCESS_TOKEN_SECONDS: '17',
    },
  });
  const { jwt, service } = stack.addresses.secrets;
  const tokens = await login('pro', stack.addresses);
  secrets.push(jwt, service, stack.addresses.demoPassword, tokens.access_token, tokens.refresh_token);
  refreshed = await openClient({ url: url(), token: tokens.access_token, lifetime: 'file' });
});

/** After all tests, so that it includes the output of the shutdown. */
afterAll(async () => {
  await stack.close();
  expect(lines.length).toBeGreaterThan(10);
  const leaks = secrets.flatMap((secret) =>
    lines.filter((line) => line.includes(secret)).map((line) => [secret, line]),
  );
  expect(leaks).toEqual([]);
  const spans = collector.bodies.join('\n');
  expect(collector.spans.length).toBeGreaterThan(10);
  expect(secrets.filter((secret) => spans.includes(secret))).toEqual([]);
});

const url = () => nodeUrl(0, stack.addresses);

function mint() {
  const minted = mintToken({ plan: 'pro', email: TEXTS.email }, { stack: stack.addresses });
  secrets.push(minted.token, minted.token.split('.')[2] ?? '', minted.userId, minted.claims.sid, minted.claims.jti);
  return minted;
}

async function connect(transport: (typeof TRANSPORTS)[number] = 'ws') {
  const { token, userId } = mint();
  const client = await openClient({ transport, url: url(), token });
  return { client, userId, token, connectionId: (await client.welcome()).connection_id };
}

/** A session over long polling, whose requests have its id in their URLs. */
async function pollBadly(): Promise<void> {
  const polling = `${url()}/socket.io/?EIO=4&transport=polling`;
  const { sid } = JSON.parse((await (await fetch(polling)).text()).slice(1));
  secrets.push(sid);
  for (const headers of [{ origin: 'http://evil.test' }, { authorization: 'Bearer x' }]) {
    await fetch(`${polling}&sid=${sid}`, { headers });
  }
  await fetch(`${polling}&sid=${sid}`, { method: 'POST', body: Array(60).fill('40/a,').join('\x1e') });
  await until(async () => (await fetch(`${polling}&sid=${sid}`)).status === 400);
}

/** Returns the line with that text, among those since `from`. */
async function logged(text: string, from: number): Promise<Record<string, unknown>> {
  const found = await until(() => lines.slice(from).find((line) => line.includes(`"msg":"${text}"`)), { label: text });
  return JSON.parse(found) as Record<string, unknown>;
}

async function everyMessage(client: TestClient): Promise<void> {
  model.script = (_request, at) =>
    at % 2 === 0
      ? { calls: [{ name: 'create_thread', args: { title: TEXTS.argument, [TEXTS.argumentName]: 1 } }] }
      : { text: [TEXTS.model] };
  await runToEnd(client, { message: TEXTS.message });
  await callTool(client, 'create_thread', { title: TEXTS.argument });
  await callTool(client, 'create_thread', { [TEXTS.argumentName]: TEXTS.argument });
  await callTool(client, TEXTS.toolName, { x: TEXTS.argument });
  client.send(TEXTS.messageType, { x: TEXTS.argument });
  await client.waitFor('error');
}

describe.each(TRANSPORTS)('what a client says over %s', (transport) => {
  it('is in no line of any log, good or bad', async () => {
    const { client } = await connect(transport);
    await everyMessage(client);
    await openClient({ transport, url: url(), token: `${TEXTS.badToken}.a.b` });
    await openClient({ transport, url: url(), token: `eyJhbGciOiJIUzI1NiJ9.${TEXTS.badToken}.x` });
    await client.close();
  });
});

describe('what comes otherwise', () => {
  it('is in no line of any log: frames that are none, queries, MCP, logins', async () => {
    const { client, token } = await connect();
    client.sendRaw(`{"type": "ping", ${TEXTS.badFrame}`);
    await client.waitFor('error');
    await openClient({ url: url(), token, query: { ticket: TEXTS.query, token: TEXTS.query } });
    await fetch(new URL(`/v1/usage/records?cursor=${TEXTS.query}`, url()));
    await pollBadly();
    const call = { name: 'create_thread', arguments: { title: TEXTS.argument, [TEXTS.argumentName]: 1 } };
    await requestModern('tools/call', call, { url: url(), token });
    await requestModern(TEXTS.mcpMethod, {}, { url: url(), token });
    await requestLegacy('tools/call', { name: TEXTS.toolName, arguments: {} }, { url: url(), token });
    await (await legacyClient(token, 'websocket', url())).listTools();
    for (const path of ['/auth/login', '/oauth/token']) {
      await fetch(new URL(path, stack.addresses.authUrl), {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          grant_type: 'password',
          username: TEXTS.email,
          email: TEXTS.email,
          password: TEXTS.password,
        }),
      });
    }
  });
});

describe('a failure of ours', () => {
  it('names connection, user and trace of a message, and nothing of the command that failed with it', async () => {
    const { client, userId, connectionId } = await connect();
    const redis = await connectRedis(stack.addresses.redisUrl, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    const { log } = new Keys(stack.addresses.keyPrefix).user(userId);
    await redis.del(log);
    await redis.set(log, 'of another type');
    const from = lines.length;
    await callTool(client, 'create_thread', { title: TEXTS.argument });
    const line = await logged('message failed', from);
    expect(line).toMatchObject({
      connection_id: connectionId,
      user: expect.stringMatching(/^[0-9a-f]{12}$/),
      trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
      err: { type: 'ReplyError', message: expect.stringContaining('WRONGTYPE') },
    });
  });

  it('names run, user, connection and trace of an agent that could not go on', async () => {
    const { client, connectionId } = await connect();
    model.script = () => ({ status: 400 });
    const from = lines.length;
    const { runId } = await runToEnd(client, { message: TEXTS.message });
    const ids = {
      run_id: runId,
      user: expect.stringMatching(/^[0-9a-f]{12}$/),
      trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
    };
    expect(await logged('model request failed', from)).toMatchObject(ids);
    expect(await logged('agent failed', from)).toMatchObject({ ...ids, connection_id: connectionId });
  });
});

/** Presents a text as a credential in every place that takes one, and returns everything that was answered. */
async function presentEverywhere(secret: string): Promise<string[]> {
  const bearer = { authorization: `Bearer ${secret}` };
  const json = { 'content-type': 'application/json' };
  const requests = [
    ...['/v1/tickets', '/mcp', '/v1/runs', '/v1/tools/count'].map((path) => ['POST', path, bearer] as const),
    ...['/v1/usage/records', '/v1/nodes', '/v1/threads'].map((path) => ['GET', path, bearer] as const),
    ['GET', `/v1/usage/records?token=${secret}`, {}] as const,
    ['GET', '/v1/nodes', { authorization: `Service-Token ${secret}`, 'x-service-id': 'a' }] as const,
  ];
  const answers = requests.map(async ([method, path, headers]) => {
    const body = method === 'POST' ? { body: '{}' } : {};
    return (await fetch(new URL(path, url()), { method, headers: { ...json, ...headers }, ...body })).text();
  });
  const grants = ['refresh_token', 'authorization_code', 'password', 'client_credentials'].map(async (grant_type) => {
    const fields = {
      grant_type,
      refresh_token: secret,
      code: secret,
      password: secret,
      username: 'a',
      client_secret: secret,
    };
    const sent = { method: 'POST', body: new URLSearchParams(fields) };
    return (await fetch(new URL('/oauth/token', stack.addresses.authUrl), sent)).text();
  });
  const clients = [
    ...TRANSPORTS.map((transport) => openClient({ transport, url: url(), token: secret })),
    openClient({ url: url(), query: { ticket: secret } }),
    openClient({ url: url(), protocols: ['jwt-auth', `jwt.${secret}`] }),
  ];
  const received = clients.map(async (opening) => {
    const client = await opening;
    // A handshake with a bad credential is refused; the message is for those that are not.
    if (!client.refusal) client.send('auth', { token: secret });
    await client.closed;
    return JSON.stringify([client.refusal, client.events]);
  });
  return Promise.all([...answers, ...grants, ...received]);
}

describe('a credential', () => {
  it('leaves no secret in metrics, error bodies and Redis, whichever way it was presented', async () => {
    const { token } = mint();
    const tokens = await login('pro', stack.addresses);
    const ticket = await buyTicket(token, { url: url() });
    const expired = mintToken({}, { stack: stack.addresses, expiresInSeconds: -60 }).token;
    const kept = await connect();
    const issued = [token, ticket, tokens.access_token, tokens.refresh_token, expired, stack.addresses.demoPassword];
    const bodies = (await Promise.all([ticket, expired, tokens.refresh_token].map(presentEverywhere))).flat();
    const metrics = await Promise.all(
      [url(), stack.addresses.authUrl].map(async (base) => (await fetch(new URL('/metrics', base))).text()),
    );
    expect(metrics[0]).toContain('tollgate_');
    const needles = [...issued, ...Object.values(stack.addresses.secrets)].map((secret) => {
      return (secret.split('.').at(-1) ?? '').slice(0, 16);
    });
    secrets.push(...needles);
    const found = (texts: readonly string[]) => texts.filter((text) => needles.some((needle) => text.includes(needle)));
    expect(found([...bodies, ...metrics])).toEqual([]);
    const redis = await connectRedis(stack.addresses.redisUrl, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    const contents = () => contentsOf(redis, `${stack.addresses.keyPrefix}*`);
    expect((await contents()).length).toBeGreaterThan(10);
    expect(found(await contents())).toEqual([]);
    // The search finds what it is looking for.
    const planted = `${stack.addresses.keyPrefix}:planted`;
    await redis.hset(planted, 'field', `x ${tokens.access_token}`);
    expect(found(await contents())).toEqual([expect.stringContaining(planted)]);
    await redis.del(planted);
    await kept.client.close();
  });
});

describe('what goes on by itself', () => {
  it('is in no line of any log: tokens that are refreshed, and decisions of operators', async () => {
    const { user_id } = await refreshed.welcome();
    const { fields } = await refreshed.waitFor('token_refreshed', { timeoutMs: 15_000 });
    secrets.push(String(fields.access_token));
    const admin = await startAdmin(stack.addresses);
    await admin('PUT', `/v1/users/${user_id}/plan`, { plan: 'free' });
    await admin('POST', `/v1/users/${user_id}/block`);
    await refreshed.closed;
    await admin('POST', `/v1/users/${user_id}/unblock`);
  });
});
