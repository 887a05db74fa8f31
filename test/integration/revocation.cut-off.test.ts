import { beforeAll, describe, expect, it } from '@jest/globals';
import { startRedisServer } from '../../scripts/lib/redis-server.ts';
import { Accounts } from '../../src/accounts/accounts.ts';
import { Revocations } from '../../src/accounts/revocations.ts';
import { connectRedis, disconnectRedis, type Redis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { openClient, type TestClient } from '../support/clients.ts';
import { silentLogger } from '../support/core.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { refused } from '../support/refusals.ts';
import { type StackProcesses, startStack } from '../support/stack.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** From the return of Redis until the effect; the client reconnects within a second. */
const BACK_MS = 3_000;
/** Twice `LOOK_AGAIN_MS` of src/accounts/invalidation-reader.ts, for a busy machine. */
const BY_THE_CLOCK_MS = 4_000;

/** A node that reaches Redis only through a proxy; the test reaches Redis directly. */
let proxy: TcpProxy;
let processes: StackProcesses;
let redis: Redis;
let keys: Keys;
let revocations: Revocations;
let accounts: Accounts;

beforeAll(async () => {
  const server = await startRedisServer();
  closeAfter('file', () => server.stop());
  proxy = await TcpProxy.start(server.url);
  processes = await startStack({ gateways: 1, workers: 0, env: { REDIS_URL: proxy.url } });
  redis = await connectRedis(server.url, 'commands', silentLogger);
  closeAfter('file', () => disconnectRedis(redis));
  keys = new Keys(processes.addresses.keyPrefix);
  revocations = new Revocations({ redis, keys });
  accounts = new Accounts({ redis, keys });
}, 30_000);

const mint = () => mintToken({}, { stack: processes.addresses });
const url = () => nodeUrl(0, processes.addresses);

async function connect({ token }: MintedToken): Promise<TestClient> {
  const client = await openClient({ url: url(), token });
  await client.welcome();
  return client;
}

async function ready(): Promise<void> {
  await until(async () => (await fetch(`${url()}/health/ready`)).ok, { timeoutMs: 10_000, label: 'the node' });
}

/** Runs work while the node cannot reach Redis and has detected it. */
async function whileCutOff(work: () => Promise<unknown>): Promise<void> {
  proxy.cut();
  await until(async () => (await fetch(`${url()}/health/ready`)).status === 503, { label: 'the outage' });
  await work();
  proxy.restore();
}

async function expectEnded(client: TestClient, code: string, withinMs: number): Promise<void> {
  const error = await client.waitFor('error', { timeoutMs: withinMs });
  expect(error.fields.code).toBe(code);
  expect(await client.closed).toEqual({ code: 1008, reason: code });
}

describe('a node that was cut off from Redis', () => {
  it('keeps its sockets meanwhile, and when it is back learns of revocations, blocks and plans', async () => {
    const users = { session: mint(), token: mint(), user: mint(), blocked: mint(), plan: mint(), other: mint() };
    const clients = {
      session: await connect(users.session),
      token: await connect(users.token),
      user: await connect(users.user),
      blocked: await connect(users.blocked),
      plan: await connect(users.plan),
      other: await connect(users.other),
    };
    await whileCutOff(async () => {
      await revocations.revoke(`sid:${users.session.claims.sid}`);
      await revocations.revoke(`jti:${users.token.claims.jti}`);
      await accounts.revokeTokens(users.user.userId);
      await accounts.setBlocked(users.blocked.userId, true);
      await accounts.setPlan(users.plan.userId, 'free');
      clients.session.send('ping');
      await clients.session.waitFor('pong');
    });
    await expectEnded(clients.session, 'TOKEN_REVOKED', BACK_MS);
    await expectEnded(clients.token, 'TOKEN_REVOKED', BACK_MS);
    await expectEnded(clients.user, 'TOKEN_REVOKED', BACK_MS);
    await expectEnded(clients.blocked, 'USER_BLOCKED', BACK_MS);
    expect((await clients.plan.waitFor('plan_changed', { timeoutMs: BACK_MS })).fields.plan).toBe('free');
    clients.other.send('ping');
    await clients.other.waitFor('pong');
    await ready();
    for (const { token } of [users.session, users.token, users.user]) {
      expect((await refused({ url: url(), token })).error.code).toBe('TOKEN_REVOKED');
    }
  }, 30_000);

  it('B124 looks at everything again when more was announced meanwhile than the stream keeps', async () => {
    const [revoked, blocked, changed] = [mint(), mint(), mint()];
    const clients = [await connect(revoked), await connect(blocked), await connect(changed)] as const;
    await whileCutOff(async () => {
      await revocations.revoke(`sid:${revoked.claims.sid}`);
      await accounts.setBlocked(blocked.userId, true);
      await accounts.setPlan(changed.userId, 'enterprise');
      await accounts.setPlan('somebody-else', 'free');
      await redis.xtrim(keys.invalidations, 'MAXLEN', 1);
    });
    await expectEnded(clients[0], 'TOKEN_REVOKED', BACK_MS);
    await expectEnded(clients[1], 'USER_BLOCKED', BACK_MS);
    expect((await clients[2].waitFor('plan_changed', { timeoutMs: BACK_MS })).fields.plan).toBe('enterprise');
  }, 30_000);
});

describe('an announcement', () => {
  it('takes effect at the next poll when its wake-up is lost', async () => {
    const minted = mint();
    const client = await connect(minted);
    // Stored and published as usual, but the wake-up goes to a channel without subscribers.
    const unheard = { invalidations: keys.invalidations, revocations: keys.revocations, invalidationChannel: 'nobody' };
    await new Revocations({ redis, keys: unheard as Keys }).revoke(`sid:${minted.claims.sid}`);
    await expectEnded(client, 'TOKEN_REVOKED', BY_THE_CLOCK_MS);
  });

  it('reaches a suspended node when it continues', async () => {
    const minted = mint();
    const client = await connect(minted);
    const pid = processes.gateways[0]?.pid ?? 0;
    process.kill(pid, 'SIGSTOP');
    try {
      await revocations.revoke(`sid:${minted.claims.sid}`);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await expectEnded(client, 'TOKEN_REVOKED', BACK_MS);
  });

  it('of a kind that this version does not know is passed over', async () => {
    const minted = mint();
    const client = await connect(minted);
    await redis.xadd(keys.invalidations, '*', 'kind', 'unheard-of', 'what', 'ever');
    await redis.xadd(keys.invalidations, '*', 'kind', 'revoked', 'subject', 'nonsense', 'until', 'x');
    await revocations.revoke(`sid:${minted.claims.sid}`);
    await expectEnded(client, 'TOKEN_REVOKED', BACK_MS);
  });
});

describe('a node that starts', () => {
  it('knows the revocations from before it started', async () => {
    const minted = mint();
    await revocations.revoke(`sid:${minted.claims.sid}`);
    await processes.gateways[0]?.restart();
    expect((await refused({ url: url(), token: minted.token })).error.code).toBe('TOKEN_REVOKED');
  }, 20_000);
});

describe('when Redis has lost its data', () => {
  it('B124 nodes continue, still refuse revoked tokens, and apply later invalidations', async () => {
    const [before, after] = [mint(), mint()];
    await connect(before);
    const client = await connect(after);
    await revocations.revoke(`sid:${before.claims.sid}`);
    await until(async () => (await refused({ url: url(), token: before.token })).error.code === 'TOKEN_REVOKED');
    await redis.flushall();
    expect((await refused({ url: url(), token: before.token })).error.code).toBe('TOKEN_REVOKED');
    await revocations.revoke(`sid:${after.claims.sid}`);
    await expectEnded(client, 'TOKEN_REVOKED', BACK_MS);
    const next = mint();
    const live = await connect(next);
    await accounts.setBlocked(next.userId, true);
    await expectEnded(live, 'USER_BLOCKED', BACK_MS);
  }, 20_000);
});
