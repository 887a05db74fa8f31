import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { type Admin, startAdmin } from '../support/admin.ts';
import { openClient, type TestClient, type TransportName } from '../support/clients.ts';
import { silentLogger } from '../support/core.ts';
import { erasureFixture, everythingUnder } from '../support/erasure.ts';
import { FakeIssuer } from '../support/fake-issuer.ts';
import { type OidcProvider, startOidcProvider, type TokenPair } from '../support/oidc-provider.ts';
import { closeAfter } from '../support/open-resources.ts';
import { type StackProcess, type StackProcesses, startStack } from '../support/stack.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Life of an access token; it is refreshed after a third of it. */
const TOKEN_SECONDS = 6;
const LONG_WAIT = { timeoutMs: 30_000 };

/** Its clients refresh by themselves. */
const other = new FakeIssuer();
let provider: OidcProvider;
let stack: StackProcesses;
let redis: Redis;
let keys: Keys;
let admin: Admin;
const lines: string[] = [];
/** All refresh tokens that clients, gateways and workers have had. */
const secrets = new Set<string>();
const folder = mkdtempSync(join(tmpdir(), 'tollgate-refresh-'));

beforeAll(async () => {
  closeAfter('file', () => rmSync(folder, { recursive: true }));
  await other.start();
  closeAfter('file', () => other.close());
  provider = await startOidcProvider();
  await provider.control('ttl', { s: String(TOKEN_SECONDS) });
  const path = join(folder, 'providers.json');
  const row = {
    name: 'oidc',
    issuer: provider.issuer,
    audiences: ['https://tollgate.example.com'],
    refresh: 'refresh_token',
    client: { id: 'chat-app', secret: `$${'{CHAT_APP_SECRET}'}` },
  };
  const client = { name: 'other', issuer: other.url, audiences: ['tollgate'], keys_url: other.keysUrl };
  const providers = [row, { ...client, user_prefix: 'o:', refresh: 'client', client: { id: 'app' } }];
  writeFileSync(path, JSON.stringify({ providers }));
  stack = await startStack({
    gateways: 2,
    workers: 2,
    env: {
      LOG_LEVEL: 'trace',
      IDENTITY_PROVIDERS: path,
      CHAT_APP_SECRET: 'chat-app-secret-of-the-test',
      TOKEN_DEGRADED_TIMEOUT_SECONDS: '60',
    },
    onLine: (line) => lines.push(line),
  });
  const { redisUrl, keyPrefix } = stack.addresses;
  redis = await connectRedis(redisUrl, 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
  keys = new Keys(keyPrefix);
  admin = await startAdmin(stack.addresses);
});

afterEach(async () => {
  for (const token of (await provider.refreshes()).used) secrets.add(token);
});

/** After all tests, so that it includes the output of the shutdown. */
afterAll(async () => {
  await stack.close();
  const all = [...secrets];
  expect(all.length).toBeGreaterThan(5);
  expect(lines.length).toBeGreaterThan(10);
  expect(lines.filter((line) => all.some((secret) => line.includes(secret)))).toEqual([]);
});

async function login(sub: string): Promise<TokenPair> {
  const pair = await provider.pair(sub);
  secrets.add(pair.refresh_token);
  return pair;
}

/** Connects and hands over the refresh token, in the form of the transport. */
async function connect({ access_token: token, refresh_token }: TokenPair, transport: TransportName, node = 0) {
  const url = stack.addresses.gateways[node]?.url;
  if (transport === 'socketio') {
    const client = await openClient({ transport, url, token, auth: { refresh_token } });
    await client.welcome();
    return client;
  }
  const client = await openClient({ url, path: '/ws' });
  await client.welcome();
  client.send('auth', { token, refresh_token });
  await client.waitFor('auth_success');
  return client;
}

async function refresh(client: TestClient, count: number) {
  const { fields } = await client.waitFor(
    ({ type, fields }) => type === 'token_refreshed' && fields.refresh_count === count,
    { label: `refresh ${count}`, ...LONG_WAIT },
  );
  if (fields.refresh_token !== undefined) secrets.add(String(fields.refresh_token));
  return fields;
}

async function timesUsed(refreshToken: string): Promise<number> {
  return (await provider.refreshes()).used.filter((one) => one === refreshToken).length;
}

const stored = async (sub: string) => redis.hgetall(keys.user(sub).tokenSession(`sid:sid-${sub}`));

/** Number of refreshes with that result, on all running workers. */
async function results(result: string): Promise<number> {
  const running = stack.workers.filter((worker: StackProcess) => worker.running);
  const counts = running.map(async ({ url }) => {
    const text = await (await fetch(`${url}/metrics`)).text();
    return Number(new RegExp(`tollgate_token_refreshes_total\\{result="${result}"\\} (\\d+)`).exec(text)?.[1] ?? 0);
  });
  return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0);
}

describe('a session whose client handed over its refresh token', () => {
  it.each<TransportName>(['ws', 'socketio'])(
    'is refreshed over and over, over %s, and each refresh token is used once',
    async (transport) => {
      const sub = freshUserId();
      const pair = await login(sub);
      const client = await connect(pair, transport);
      const first = await refresh(client, 1);
      const second = await refresh(client, 2);
      const handed = [pair.refresh_token, String(first.refresh_token), String(second.refresh_token)];
      expect(new Set(handed).size).toBe(3);
      expect(await Promise.all(handed.slice(0, 2).map(timesUsed))).toEqual([1, 1]);
      expect((await provider.refreshes()).revoked).toBe(0);
      expect(JSON.stringify([...(await everythingUnder(redis, keys.prefix))])).not.toContain(second.refresh_token);
    },
    60_000,
  );

  it('continues with the last refresh token after all its connections have closed', async () => {
    const sub = freshUserId();
    const client = await connect(await login(sub), 'ws');
    const { access_token, refresh_token } = await refresh(client, 1);
    await client.close();
    await until(async () => (await stored(sub)).token === undefined);
    const next = { access_token: String(access_token), refresh_token: String(refresh_token) };
    const again = await connect(next, 'socketio', 1);
    expect((await refresh(again, 1)).refresh_token).toEqual(expect.any(String));
    expect(await timesUsed(String(refresh_token))).toBe(1);
  }, 60_000);

  it('gives the next refresh token only to connections that handed over one of its family', async () => {
    const sub = freshUserId();
    const pair = await login(sub);
    const url = stack.addresses.gateways[1]?.url;
    const owner = await connect(pair, 'ws');
    const [plain, guessing] = await Promise.all([1, 2].map(() => openClient({ url, token: pair.access_token })));
    await Promise.all([plain?.welcome(), guessing?.welcome()]);
    guessing?.send('token_refresh', { token: pair.access_token, refresh_token: 'a-guess' });
    await guessing?.waitFor('token_refreshed');
    const received = await refresh(owner, 1);
    expect(received.refresh_token).toEqual(expect.any(String));
    for (const client of [plain, guessing]) {
      const event = client && (await refresh(client, 1));
      expect(event?.access_token).toBe(received.access_token);
      expect(event).not.toHaveProperty('refresh_token');
    }
  }, 60_000);

  it('gives the newest tokens to a connection that hands over the previous ones', async () => {
    const pair = await login(freshUserId());
    const first = await connect(pair, 'ws');
    const received = await refresh(first, 1);
    const late = await connect(pair, 'socketio', 1);
    const { fields } = await late.waitFor('token_refreshed', LONG_WAIT);
    expect(fields.refresh_token).toEqual(expect.any(String));
    if (fields.refresh_count === 1) expect(fields.refresh_token).toBe(received.refresh_token);
    expect((await refresh(late, 2)).refresh_token).toBe((await refresh(first, 2)).refresh_token);
    expect(await timesUsed(pair.refresh_token)).toBe(1);
  }, 60_000);

  it('takes a refresh token in band for the token that the connection already has', async () => {
    const pair = await login(freshUserId());
    const client = await openClient({ url: stack.addresses.gateways[0]?.url, token: pair.access_token });
    await client.welcome();
    client.send('token_refresh', { token: pair.access_token, refresh_token: pair.refresh_token });
    await client.waitFor('token_refreshed');
    expect((await refresh(client, 1)).refresh_token).toEqual(expect.any(String));
  }, 60_000);

  it('sends no refresh token twice that a client handed over in two sessions', async () => {
    const sub = freshUserId();
    const pair = await login(sub);
    const { access_token } = await provider.pair(sub, 'another');
    const one = await connect(pair, 'ws');
    const two = await connect({ access_token, refresh_token: pair.refresh_token }, 'ws', 1);
    const refreshed = (client: TestClient) => client.events.some(({ fields }) => fields.refresh_count === 1);
    await until(() => refreshed(one) || refreshed(two), LONG_WAIT);
    const loser = refreshed(one) ? two : one;
    await loser.waitFor('token_degraded', LONG_WAIT);
    expect(await timesUsed(pair.refresh_token)).toBe(1);
    expect((await provider.refreshes()).revoked).toBe(0);
  }, 60_000);

  it.each<[string, Record<string, unknown>, string]>([
    ['without its access token', { refresh_token: 'x' }, 'needs the access token beside it'],
    ['that is none', { token: 'x', refresh_token: 'ä' }, 'printable ASCII'],
  ])('is not refreshed with a refresh token %s: FORMAT_ERROR', async (_what, fields, text) => {
    const { access_token } = await login(freshUserId());
    const client = await openClient({ url: stack.addresses.gateways[0]?.url, token: access_token });
    await client.welcome();
    client.send('token_refresh', fields);
    const { fields: error } = await client.waitFor('error');
    expect(JSON.stringify(error)).toContain('FORMAT_ERROR');
    expect(JSON.stringify(error)).toContain(text);
  });

  it('is left to its client when a worker dies with the answer, and its token is not sent again', async () => {
    const sub = freshUserId();
    const pair = await login(sub);
    await provider.control('hold', { on: 'true' });
    const client = await connect(pair, 'ws');
    await until(async () => (await timesUsed(pair.refresh_token)) === 1, { everyMs: 20, ...LONG_WAIT });
    await Promise.all(stack.workers.map((worker) => worker.kill()));
    await provider.control('hold', { on: 'false' });
    await Promise.all(stack.workers.map((worker) => worker.start()));
    await client.waitFor('token_degraded', LONG_WAIT);
    // The claim of the dead worker expires after 15 s; then another one finds no refresh token.
    await until(async () => (await results('client')) > 0, { label: 'left', ...LONG_WAIT });
    expect(await timesUsed(pair.refresh_token)).toBe(1);
    expect((await provider.refreshes()).revoked).toBe(0);
    // An erasure finds the session by this entry.
    expect(await redis.zscore(keys.user(sub).tokenDue, `${sub} sid:sid-${sub}`)).not.toBeNull();
    const next = await login(sub);
    client.send('token_refresh', { token: next.access_token, refresh_token: next.refresh_token });
    await refresh(client, 2);
    expect(await timesUsed(next.refresh_token)).toBe(1);
  }, 90_000);

  it('ends as refused when the provider detects that its refresh token was used before', async () => {
    const { revoked } = await provider.refreshes();
    const pair = await login(freshUserId());
    const basic = Buffer.from('chat-app:chat-app-secret-of-the-test').toString('base64');
    const body = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: pair.refresh_token });
    const answer = await fetch(`${provider.issuer}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${basic}` },
      body,
    });
    expect(answer.status).toBe(200);
    const client = await connect(pair, 'socketio');
    const { fields } = await client.waitFor('session_terminated', LONG_WAIT);
    expect(fields).toMatchObject({ reason: 'refused' });
    expect((await provider.refreshes()).revoked).toBe(revoked + 1);
  }, 60_000);

  it('has none where the provider has another mode: the token is ignored, without an error', async () => {
    const sub = freshUserId();
    const exp = Math.floor(Date.now() / 1000) + 600;
    const token = other.sign({ iss: other.url, aud: 'tollgate', sub, sid: 'one', exp });
    secrets.add(`of-another-mode-${sub}`);
    const auth = { refresh_token: `of-another-mode-${sub}` };
    const url = stack.addresses.gateways[0]?.url;
    const client = await until(async () => {
      const opened = await openClient({ transport: 'socketio', url, token, auth });
      return (await opened.welcome().catch(() => undefined)) && opened;
    });
    client.send('token_refresh', { token, ...auth });
    await client.waitFor('token_refreshed');
    const session = await redis.hgetall(keys.user(`o:${sub}`).tokenSession('sid:one'));
    expect(Object.keys(session)).toContain('token');
    expect(Object.keys(session).filter((field) => field.startsWith('refresh_'))).toEqual([]);
  });

  it('keeps no refresh token in Redis after a revocation or an erasure', async () => {
    const [revokedUser, erasedUser] = [freshUserId(), freshUserId()];
    const clients = [await connect(await login(revokedUser), 'ws'), await connect(await login(erasedUser), 'ws')];
    await Promise.all(clients.map((client) => refresh(client, 1)));
    expect(await stored(erasedUser)).toMatchObject({ refresh_digest: expect.any(String) });
    const used = keys.user(erasedUser).usedRefreshTokens;
    expect(await redis.zcard(used)).toBeGreaterThan(0);

    await admin('POST', '/v1/tokens/revoke', { sid: `sid-${revokedUser}` });
    await clients[0]?.closed;
    await until(async () => Object.keys(await stored(revokedUser)).length === 0);

    const { status, body } = await admin('DELETE', `/v1/users/${erasedUser}/data`);
    expect(status).toBe(202);
    await erasureFixture({ redis, keys }).finish(body.erasure_id);
    expect(await redis.exists(used)).toBe(0);
    expect(await stored(erasedUser)).toEqual({});
  }, 60_000);
});
