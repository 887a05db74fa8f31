import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { type RunningGateway, startGateway } from '../../src/compose/gateway.ts';
import { loadConfig } from '../../src/config.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { FakeIssuer } from '../support/fake-issuer.ts';
import { type OidcProvider, startOidcProvider } from '../support/oidc-provider.ts';
import { closeAfter } from '../support/open-resources.ts';
import { testRedisUrl } from '../support/stack.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { freshUserId } from '../support/tokens.ts';
import { until } from '../support/until.ts';

let provider: OidcProvider;
const events = new FakeIssuer();
const gateways: RunningGateway[] = [];
const lines: Record<string, unknown>[] = [];
const folder = mkdtempSync(join(tmpdir(), 'tollgate-identity-'));
const prefix = `i${randomBytes(6).toString('hex')}`;

const urlOf = (node = 0) => `http://127.0.0.1:${gateways[node]?.port}`;
const logged = (text: string) => lines.filter(({ msg }) => msg === text);

/** Starts a gateway that accepts the tokens of oidc-provider and of a fake issuer. */
async function start(): Promise<RunningGateway> {
  const path = join(folder, 'providers.json');
  const plan = { from: 'groups', map: { 'pro-users': 'pro' } };
  const services = [{ client: 'billing-job', service_id: 'billing', scope_map: { 'usage.read': 'usage:read' } }];
  const rows = [
    {
      name: 'oidc',
      issuer: provider.issuer,
      audiences: ['https://tollgate.example.com', 'chat-app'],
      accepted_types: ['at+jwt'],
      claims: { plan },
      services,
    },
    { name: 'events', issuer: events.url, audiences: ['tollgate'], keys_url: events.keysUrl, user_prefix: 'e:' },
  ];
  writeFileSync(path, JSON.stringify({ providers: rows }));
  const config = loadConfig({
    ENVIRONMENT: 'test',
    HOST: '127.0.0.1',
    PORT: '0',
    REDIS_URL: testRedisUrl(),
    REDIS_KEY_PREFIX: prefix,
    AUTH_SERVICE_URL: provider.issuer,
    SERVICE_SECRET: randomBytes(32).toString('hex'),
    IDENTITY_PROVIDERS: path,
    AUTH_FAILURES_PER_MINUTE: '1000000',
    DRAIN_SECONDS: '0',
  });
  const sink = new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  const gateway = await startGateway(config, { logger: pino({ level: 'info' }, sink) });
  closeAfter('file', () => gateway.close());
  return gateway;
}

beforeAll(async () => {
  closeAfter('file', () => rmSync(folder, { recursive: true }));
  await events.start();
  closeAfter('file', () => events.close());
  provider = await startOidcProvider();
  gateways.push(await start(), await start());
  await provider.control('logout-uri', { uri: `${urlOf()}/v1/identity/backchannel-logout` });
  await until(async () => (await fetch(`${urlOf()}/health/ready`)).ok);
});

describe('a user of oidc-provider', () => {
  it.each(TRANSPORTS)('connects over %s with the mapped plan, whatever the subject is', async (transport) => {
    const sub = `auth0|${freshUserId()}/=`;
    const token = await provider.token(sub);
    const client = await until(async () => openClient({ transport, url: urlOf(), token }).catch(() => undefined));
    expect(await client.welcome()).toMatchObject({ user_id: sub, plan: 'pro' });
  });

  it('is not let in with a token for another API, and the log names the claim at info, not the value', async () => {
    const token = events.sign({ iss: events.url, aud: 'secret-value', sub: 'ada', exp: 4_000_000_000 });
    const answer = await fetch(`${urlOf()}/v1/tickets`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    });
    expect(answer.status).toBe(401);
    const [line] = logged('credential refused').slice(-1);
    expect(line).toMatchObject({ code: 'VALIDATION_FAILED', claim: 'aud', level: 30 });
    expect(JSON.stringify(lines)).not.toContain('secret-value');
  });

  it('finds its provider in the metadata of the protected resource /mcp', async () => {
    const metadata = await fetch(`${urlOf()}/.well-known/oauth-protected-resource/mcp`);
    expect(await metadata.json()).toMatchObject({ authorization_servers: [provider.issuer, events.url] });
  });

  it('is refused retryably after a rotation of the keys, and let in once they are fetched', async () => {
    await (await openClient({ url: urlOf(), token: await provider.token(freshUserId()) })).welcome();
    await provider.control('rotate');
    const token = await provider.token(freshUserId());
    const headers = { authorization: `Bearer ${token}` };
    const answers: { status: number; body: { error?: object } }[] = [];
    const last = await until(
      async () => {
        const answer = await fetch(`${urlOf()}/v1/tickets`, { method: 'POST', headers });
        answers.push({ status: answer.status, body: (await answer.json()) as { error?: object } });
        return answer.status === 201 ? answer : undefined;
      },
      { timeoutMs: 20_000, everyMs: 250 },
    );
    expect(last.status).toBe(201);
    expect(new Set(answers.slice(0, -1).map(({ status }) => status))).not.toContain(401);
    for (const { status, body } of answers) {
      if (status === 503) expect(body.error).toMatchObject({ retryable: true, retry_after_ms: expect.any(Number) });
    }
  }, 40_000);

  it('is let in with known keys while the provider is away, and slow answers delay no other user', async () => {
    const tokens = [await provider.token(freshUserId()), await provider.token(freshUserId())];
    await (await openClient({ url: urlOf(), token: tokens[0] })).welcome();
    await provider.control('outage', { on: 'true' });
    const watch = await Stopwatch.start();
    await (await openClient({ url: urlOf(), token: tokens[1] })).welcome();
    expect(watch.ms).toBeLessThan(watch.allow(1_000));
    await provider.control('outage', { on: 'false' });
    await provider.control('delay', { ms: '5000' });
    await (await openClient({ url: urlOf(), token: tokens[0] })).welcome();
    await provider.control('delay', { ms: '0' });
  });
});

describe('the end of a session at the provider', () => {
  it('closes its connections on every node when oidc-provider sends a logout token', async () => {
    const [sub, sid] = [freshUserId(), `sid-${freshUserId()}`];
    const clients = await Promise.all(
      [0, 1].map(async (node) => openClient({ url: urlOf(node), token: await provider.token(sub, sid) })),
    );
    const other = await openClient({ url: urlOf(1), token: await provider.token(sub, 'another') });
    for (const client of [...clients, other]) await client.welcome();
    const watch = await Stopwatch.start();
    await provider.control('logout', { sub, sid });
    for (const client of clients) expect(await client.closed).toMatchObject({ code: 1008, reason: 'TOKEN_REVOKED' });
    expect(watch.ms).toBeLessThan(watch.allow(1_000));
    other.send('ping');
    await other.waitFor('pong');
  });

  const CAEP = 'https://schemas.openid.net/secevent/caep/event-type/session-revoked';
  const base = () => {
    const now = Math.floor(Date.now() / 1000);
    return { iss: events.url, aud: 'tollgate', iat: now, jti: randomBytes(8).toString('hex') };
  };
  const post = (set: string) => {
    return fetch(`${urlOf()}/v1/identity/events`, {
      method: 'POST',
      headers: { 'content-type': 'application/secevent+jwt' },
      body: set,
    });
  };
  const connect = async (sub: string, sid: string) => {
    const now = Math.floor(Date.now() / 1000);
    const token = events.sign({ iss: events.url, aud: 'tollgate', sub, sid, iat: now, exp: now + 600 });
    const client = await openClient({ url: urlOf(1), token });
    await client.welcome();
    return client;
  };

  it.each<[string, (sub: string, sid: string) => object]>([
    ['of a user', (sub) => ({ format: 'iss_sub', iss: events.url, sub })],
    ['of a session', (_sub, sid) => ({ format: 'complex', session: { format: 'opaque', id: sid } })],
    ['of a complex subject', (sub) => ({ format: 'complex', user: { format: 'iss_sub', iss: events.url, sub } })],
  ])('closes connections on every node for a CAEP event %s', async (_what, subject) => {
    const [sub, sid] = [freshUserId(), freshUserId()];
    const client = await connect(sub, sid);
    const set = events.sign(
      { ...base(), sub_id: subject(sub, sid), events: { [CAEP]: {} } },
      { typ: 'secevent+jwt', kid: events.kid },
    );
    const watch = await Stopwatch.start();
    expect((await post(set)).status).toBe(202);
    expect(await client.closed).toMatchObject({ code: 1008, reason: 'TOKEN_REVOKED' });
    expect(watch.ms).toBeLessThan(watch.allow(1_000));
  });

  it('does not end a later login when the event of an earlier one is delivered again', async () => {
    const sub = freshUserId();
    const earlier = { ...base(), iat: Math.floor(Date.now() / 1000) - 60 };
    const set = events.sign({ ...earlier, sub_id: { format: 'iss_sub', sub }, events: { [CAEP]: {} } });
    expect((await post(set)).status).toBe(202);
    const client = await connect(sub, 'sid');
    expect((await post(set)).status).toBe(202);
    client.send('ping');
    await client.waitFor('pong');
  });

  it.each<[string, () => string]>([
    [
      'of another signature',
      () =>
        `${events
          .sign({ ...base(), events: { [CAEP]: {} } })
          .split('.')
          .slice(0, 2)
          .join('.')}.AAAA`,
    ],
    ['for another audience', () => events.sign({ ...base(), aud: 'other', events: { [CAEP]: {} } })],
    ['without a subject', () => events.sign({ ...base(), events: { [CAEP]: {} } })],
    ['without an id', () => events.sign({ ...base(), jti: undefined, sub_id: { sub: 'a' }, events: { [CAEP]: {} } })],
    [
      'about a user of another issuer',
      () => events.sign({ ...base(), sub_id: { iss: 'https://x.test', sub: 'a' }, events: { [CAEP]: {} } }),
    ],
    [
      'of another type',
      () => events.sign({ ...base(), sub_id: { sub: 'a' }, events: { [CAEP]: {} } }, { typ: 'at+jwt' }),
    ],
  ])('is refused with 400 by an event %s', async (_what, sign) => {
    expect((await post(sign())).status).toBe(400);
  });

  it.each<[string, () => object]>([
    ['an access token', () => ({ sub: 'a' })],
    [
      'a token with a nonce',
      () => ({ sub: 'a', nonce: 'n', events: { 'http://schemas.openid.net/event/backchannel-logout': {} } }),
    ],
    ['a token without a subject', () => ({ events: { 'http://schemas.openid.net/event/backchannel-logout': {} } })],
  ])('is refused with 400 by a logout request with %s', async (_what, claims) => {
    const body = new URLSearchParams({ logout_token: events.sign({ ...base(), ...claims() }) });
    const answer = await fetch(`${urlOf()}/v1/identity/backchannel-logout`, { method: 'POST', body });
    expect(answer.status).toBe(400);
  });

  it('has no effect by an event of another kind', async () => {
    const events_ = { 'https://schemas.openid.net/secevent/ssf/event-type/verification': { state: 's' } };
    expect(
      (await post(events.sign({ ...base(), sub_id: { format: 'opaque', id: 'stream' }, events: events_ }))).status,
    ).toBe(202);
  });
});

it('makes the own token of a client of oidc-provider a service with the mapped scopes, and no user', async () => {
  const basic = Buffer.from('billing-job:billing-job-secret-of-the-test').toString('base64');
  const response = await fetch(`${provider.issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${basic}` },
    body: new URLSearchParams({
      grant_type: 'client_credentials',
      scope: 'usage.read',
      resource: 'https://tollgate.example.com',
    }),
  });
  const { access_token } = (await response.json()) as { access_token: string };
  const headers = { authorization: `Bearer ${access_token}` };
  const statuses = await Promise.all(
    ['/v1/usage/records', '/v1/nodes'].map(async (path) => (await fetch(`${urlOf()}${path}`, { headers })).status),
  );
  expect(statuses).toEqual([200, 403]);
  expect((await fetch(`${urlOf()}/v1/tickets`, { method: 'POST', headers })).status).toBe(401);
});
