import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { CLAIM_MS } from '../../src/auth/token-refresh/token-sessions.ts';
import { partitionOf } from '../../src/redis/keys.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { type Login, SecondDeployment } from '../support/token-lifecycle.ts';
import { until } from '../support/until.ts';

const LEAD_MS = 15_000;
const TOKEN_MS = 60_000;

let deployment: SecondDeployment;
/** Work that takes real time also advances the clock of the deployment. */
let watch: Stopwatch;

beforeAll(async () => {
  deployment = await SecondDeployment.start({ gateways: 2 });
});

beforeEach(async () => {
  watch = await Stopwatch.start();
});

function expiryOf({ access_token }: Pick<Login, 'access_token'>): number {
  return claimsOf(access_token).exp * 1000;
}

function claimsOf(token: string): { exp: number; iat: number; sid: string; sub: string; jti: string } {
  return JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
}

/** Returns the client's next new token and its time of issue. The time of arrival depends on the machine too. */
async function nextRefresh(client: TestClient, from = client.mark()) {
  const came = () => client.events.slice(from).some(({ type }) => type === 'token_refreshed');
  await deployment.advance(TOKEN_MS + LEAD_MS, came);
  const { fields } = await client.waitFor('token_refreshed', { from });
  return { at: claimsOf(String(fields.access_token)).iat * 1000, fields };
}

function refreshed(): Promise<number> {
  return deployment.metrics.refreshes.get().then(({ values }) => {
    return values.find(({ labels }) => labels.result === 'refreshed')?.value ?? 0;
  });
}

describe.each(TRANSPORTS)('the token of a connection over %s', (transport) => {
  it('B57 B61 B62 B138 is refreshed 15 s before its end without being asked, and the new one is good', async () => {
    const login = await deployment.login();
    const client = await deployment.connect(login.access_token, { transport });
    const { at, fields } = await nextRefresh(client);
    expect(Math.abs(expiryOf(login) - LEAD_MS - at)).toBeLessThanOrEqual(watch.allow(2_000));
    const { access_token, token_expires_at, refresh_count } = fields as Record<string, string>;
    expect(refresh_count).toBe(1);
    expect(Date.parse(token_expires_at ?? '')).toBe(expiryOf({ access_token: access_token ?? '' }));
    expect(claimsOf(access_token ?? '')).toMatchObject({
      sid: claimsOf(login.access_token).sid,
      sub: claimsOf(login.access_token).sub,
    });
    const another = await deployment.connect(access_token ?? '', { transport });
    await another.close();
  });

  it('B68 B69 B140 B143 keeps the connection alive for five minutes, a refresh every 45 s', async () => {
    const login = await deployment.login();
    const client = await deployment.connect(login.access_token, { transport });
    const times: number[] = [];
    for (let count = 1; count <= 7; count++) {
      const { at, fields } = await nextRefresh(client);
      times.push(at);
      expect(fields.refresh_count).toBe(count);
    }
    const gaps = times.slice(1).map((at, i) => at - (times[i] ?? 0));
    for (const gap of gaps) expect(Math.abs(gap - (TOKEN_MS - LEAD_MS))).toBeLessThanOrEqual(watch.allow(2_000));
    expect(deployment.clock.now() - expiryOf(login)).toBeGreaterThan(240_000);
    client.send('ping');
    await client.waitFor('pong');
    await client.close();
  });

  it('B66 is refreshed at once when the client asks for it', async () => {
    const login = await deployment.login();
    const client = await deployment.connect(login.access_token, { transport });
    client.send('token_refresh');
    await client.waitFor('token_refresh_scheduled');
    await deployment.advance(2_000);
    expect((await client.waitFor('token_refreshed')).fields).toMatchObject({ refresh_count: 1 });
  });
});

describe('a login session', () => {
  it('has its token refreshed once for all of its connections, on any node, and each is notified', async () => {
    const login = await deployment.login('enterprise');
    const clients = [
      await deployment.connect(login.access_token, { node: 0 }),
      await deployment.connect(login.access_token, { node: 1, transport: 'socketio' }),
      await deployment.connect(login.access_token, { node: 1 }),
    ];
    const before = await refreshed();
    await deployment.advance(50_000);
    const received = await Promise.all(clients.map((client) => client.waitFor('token_refreshed')));
    expect(new Set(received.map(({ fields }) => fields.access_token)).size).toBe(1);
    expect((await refreshed()) - before).toBe(1);
  });

  it('B56 B65 has a token of its own: five sessions are refreshed side by side and none sees the token of another', async () => {
    const logins = await Promise.all(['free', 'pro', 'enterprise', 'developer', 'pro'].map((p) => deployment.login(p)));
    const clients = await Promise.all(
      logins.map((login, i) => deployment.connect(login.access_token, { node: i % 2 })),
    );
    await deployment.advance(50_000);
    const tokens = await Promise.all(
      clients.map(async (client) => String((await client.waitFor('token_refreshed')).fields.access_token)),
    );
    expect(tokens.map((token) => claimsOf(token).sid)).toEqual(logins.map((login) => claimsOf(login.access_token).sid));
    for (const client of clients) {
      expect(client.events.filter(({ type }) => type === 'token_refreshed')).toHaveLength(1);
      await client.close();
    }
  });

  it('B60 B145 gives its latest token to a connection that comes with an older one', async () => {
    const login = await deployment.login();
    const first = await deployment.connect(login.access_token);
    const { fields } = await nextRefresh(first);
    const second = await deployment.connect(login.access_token, { node: 1 });
    const { timestamp: _, ...token } = fields;
    expect((await second.waitFor('token_refreshed')).fields).toMatchObject(token);
    // After its welcome.
    expect(second.events.map(({ type }) => type).indexOf('token_refreshed')).toBeGreaterThan(0);
  });

  it('hears of a newer token that one of its clients brings itself', async () => {
    const login = await deployment.login();
    const bringing = await deployment.connect(login.access_token);
    const other = await deployment.connect(login.access_token, { node: 1 });
    await deployment.advance(5_000);
    const next = (await deployment.post('/oauth/token', {
      grant_type: 'refresh_token',
      refresh_token: login.refresh_token,
    })) as Login;
    bringing.send('token_refresh', { token: next.access_token });
    expect((await bringing.waitFor('token_refreshed')).fields).not.toHaveProperty('access_token');
    expect((await other.waitFor('token_refreshed')).fields).toMatchObject({ access_token: next.access_token });
    const { at } = await nextRefresh(other);
    expect(Math.abs(expiryOf(next) - LEAD_MS - at)).toBeLessThanOrEqual(watch.allow(2_000));
    await until(() => bringing.events.filter(({ type }) => type === 'token_refreshed').length === 2);
  });

  it('refreshes the connection of a ticket as well', async () => {
    const login = await deployment.login();
    const url = `http://127.0.0.1:${deployment.gateways[0]?.port}`;
    const headers = { authorization: `Bearer ${login.access_token}` };
    const bought = await fetch(`${url}/v1/tickets`, { method: 'POST', headers });
    const { ticket } = (await bought.json()) as { ticket: string };
    const client = await openClient({ url, query: { ticket } });
    expect(await client.welcome()).toMatchObject({ auth_method: 'ticket' });
    await nextRefresh(client);
  });
});

describe('what is counted of tokens', () => {
  it('B55 B71 B73 B142 B238 is every registration, refresh and end, the state of the live ones, and how long they lived', async () => {
    const { access_token } = await deployment.login('free');
    const before = await deployment.metricsOf(1);
    const client = await deployment.connect(access_token, { node: 1 });
    const { fields } = await nextRefresh(client);
    expect(Date.parse(String(fields.timestamp))).toBeLessThanOrEqual(deployment.clock.now());
    const during = await deployment.metricsOf(1);
    const live = 'tollgate_connections{endpoint="/ws/secure",plan="free",state="active"}';
    expect((during.get(live) ?? 0) - (before.get(live) ?? 0)).toBe(1);
    await client.close();
    const grown = async (name: string) => ((await deployment.metricsOf(1)).get(name) ?? 0) - (before.get(name) ?? 0);
    await until(async () => (await grown('tollgate_token_events_total{event="unregistered"}')) === 1);
    expect(await grown('tollgate_token_events_total{event="registered"}')).toBe(1);
    expect(await grown('tollgate_token_events_total{event="refreshed"}')).toBe(1);
    expect(await grown('tollgate_connection_seconds_count')).toBe(1);
    expect(await grown('tollgate_connection_seconds_sum')).toBeGreaterThan(40);
    expect(await grown(live)).toBe(0);
  });
});

describe('what is kept of a session', () => {
  it('B59 is nothing when its connection was refused', async () => {
    const login = await deployment.login('free');
    await deployment.advance(TOKEN_MS + 10_000);
    const url = `http://127.0.0.1:${deployment.gateways[0]?.port}`;
    const client = await openClient({ url, token: login.access_token });
    expect(await client.closed).toMatchObject({ code: 1008, reason: 'TOKEN_EXPIRED' });
    expect(await keptKeys(login)).toEqual([]);
  });

  async function keptKeys(login: Login): Promise<string[]> {
    const { sub, sid } = claimsOf(login.access_token);
    const keys = deployment.keys.user(sub);
    const found = await Promise.all(
      [keys.tokenSession(`sid:${sid}`), keys.tokenConnections(`sid:${sid}`)].map(async (key) =>
        (await deployment.redis.exists(key)) ? [key] : [],
      ),
    );
    const due = await deployment.redis.zscore(keys.tokenDue, `${sub} sid:${sid}`);
    return [...found.flat(), ...(due === null ? [] : [keys.tokenDue])];
  }

  it('B58 goes with its last connection, and nowhere can the token be read', async () => {
    const login = await deployment.login('free');
    const { sub, sid } = claimsOf(login.access_token);
    const first = await deployment.connect(login.access_token);
    const second = await deployment.connect(login.access_token, { node: 1 });
    expect(await keptKeys(login)).toHaveLength(3);
    const stored = await deployment.redis.hgetall(deployment.keys.user(sub).tokenSession(`sid:${sid}`));
    expect(JSON.stringify(stored)).not.toContain(login.access_token.split('.')[1]);
    expect(await deployment.redis.pttl(deployment.keys.user(sub).tokenSession(`sid:${sid}`))).toBeGreaterThan(0);
    await first.close();
    expect(await keptKeys(login)).toHaveLength(3);
    await second.close();
    await until(async () => (await keptKeys(login)).length === 0, { label: 'nothing kept' });
  });

  it('B128 goes when the socket dies while its token is being refreshed', async () => {
    const login = await deployment.login('developer');
    const { sub, sid } = claimsOf(login.access_token);
    const client = await deployment.connect(login.access_token);
    client.terminate();
    await until(async () => (await keptKeys(login)).length === 0, { label: 'nothing kept' });
    // The worker returns from the auth service with the new token.
    expect(
      await deployment.tokenSessions.refreshed({ userId: sub, session: `sid:${sid}` }, 'new', Date.now() + 1e6),
    ).toBe(false);
    expect(await keptKeys(login)).toEqual([]);
  });

  it('is removed at its next refresh after the node of its connection was killed', async () => {
    const login = await deployment.login('developer');
    const { sub, sid } = claimsOf(login.access_token);
    const client = await deployment.connect(login.access_token);
    const { connection_id } = await client.welcome();
    await client.close();
    await until(async () => (await keptKeys(login)).length === 0, { label: 'nothing kept' });
    // The state that a killed node leaves behind: registered, and without a lease.
    const sealed = { sealed: 'x', expiresAt: expiryOf(login) };
    await deployment.tokenSessions.register({ userId: sub, session: `sid:${sid}` }, String(connection_id), sealed);
    expect(await keptKeys(login)).toHaveLength(3);
    await deployment.advance(TOKEN_MS);
    expect(await keptKeys(login)).toEqual([]);
  });
});

describe('workers that look for due tokens at the same time', () => {
  it('take each session once, and one that a worker took and did not finish after its claim', async () => {
    const login = await deployment.login('enterprise');
    const client = await deployment.connect(login.access_token);
    deployment.clock.advance(TOKEN_MS - LEAD_MS + 1_000);
    const { sub } = claimsOf(login.access_token);
    const taken = await Promise.all(
      Array.from({ length: 8 }, () => deployment.tokenSessions.claimDue(partitionOf(sub), 10)),
    );
    expect(taken.flat().filter(({ userId }) => userId === sub)).toHaveLength(1);
    expect(await deployment.refresh()).toBe(0);
    await deployment.advance(CLAIM_MS + 1_000);
    await client.waitFor('token_refreshed');
  });
});
