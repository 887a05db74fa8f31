import { beforeAll, describe, expect, it } from '@jest/globals';
import { UserLogWriter } from '../../src/events/user-log-writer.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys, partitionOf } from '../../src/redis/keys.ts';
import { slotOf } from '../../src/redis/slots.ts';
import { startAdmin } from '../support/admin.ts';
import { runToEnd } from '../support/agent-runs.ts';
import { Reports } from '../support/chaos/invariants.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { LOG_BYTES, silentLogger, thinking } from '../support/core.ts';
import { billedRecords } from '../support/ledger.ts';
import { runMainPath } from '../support/main-path.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RedisClusterProcesses } from '../support/redis-cluster.ts';
import type { RedisProcess } from '../support/redis-process.ts';
import { seqs, upTo } from '../support/runs.ts';
import { StackProcesses } from '../support/stack-processes.ts';
import { freshUserId, mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

const NODES = 3;
const env = {
  // A token is refreshed after a third of its life.
  ACCESS_TOKEN_SECONDS: '5',
  MESSAGE_RATE_PER_MINUTE: '1000',
  // The warning would appear for each command to a killed master.
  LOG_LEVEL: 'error',
};

describe('a deployment on a Redis Cluster', () => {
  let cluster: RedisClusterProcesses;
  let stack: StackProcesses;

  beforeAll(async () => {
    cluster = await RedisClusterProcesses.start({ replicas: 1 });
    closeAfter('file', () => cluster.close());
    stack = await StackProcesses.start({ gateways: NODES, workers: 2, env, redisUrl: cluster.url });
    closeAfter('file', () => stack.close());
  }, 60_000);

  /** Returns tokens of users, one per shard, in the order of the shards. */
  function userOfEachShard() {
    const found = new Map<number, ReturnType<typeof mintToken>>();
    while (found.size < cluster.masters.length) {
      const userId = freshUserId();
      const shard = shardOf(userId);
      if (!found.has(shard)) found.set(shard, mintToken({ sub: userId, plan: 'pro' }, { stack: stack.addresses }));
    }
    return cluster.masters.map((_, shard) => found.get(shard) as ReturnType<typeof mintToken>);
  }

  function shardOf(userId: string): number {
    const slot = slotOf(`${stack.addresses.keyPrefix}:{p${partitionOf(userId)}}`);
    return Math.floor((slot * cluster.masters.length) / 16_384);
  }

  it('B171 does all that clients, operators and billing want of it', async () => {
    await runMainPath(stack.addresses);
    // Every shard holds a part of the keys.
    for (const master of cluster.masters) expect(await master.ask((redis) => redis.dbsize())).toBeGreaterThan(0);
  }, 60_000);

  it('appends for users of all shards at the same time', async () => {
    const redis = await connectRedis(cluster.url, 'commands', silentLogger);
    closeAfter('test', () => disconnectRedis(redis));
    const keys = new Keys(stack.addresses.keyPrefix);
    const log = new UserLogWriter(
      { redis, keys, metrics: new Metrics(), tracing: NO_TRACING },
      { length: 1_000, maxAgeMs: 3_600_000, maxBytes: LOG_BYTES },
    );
    // More users than partitions, so that some share a script.
    const users = Array.from({ length: 200 }, () => freshUserId());
    const results = await Promise.all(users.map((userId) => log.append({ userId, events: [thinking('x')] })));
    expect(results).toEqual(users.map(() => ({ outcome: 'appended', seq: 1, cancelRequested: false })));
  });

  it('B12 holds to the cap over three nodes, for users on every shard', async () => {
    for (const { token } of userOfEachShard()) {
      const clients: TestClient[] = [];
      for (const node of [0, 1, 2, 1, 0]) {
        const client = await openClient({ url: nodeUrl(node, stack.addresses), token });
        await client.welcome();
        clients.push(client);
      }
      for (const old of clients.slice(0, 2)) {
        expect(await old.closed).toEqual({ code: 4001, reason: 'CONNECTION_LIMIT_EXCEEDED' });
      }
      for (const kept of clients.slice(2)) {
        kept.send('ping');
        await kept.waitFor('pong');
      }
    }
  });

  it('counts a daily allowance exactly over three nodes, and bills what was allowed', async () => {
    const { token, userId } = mintToken({ plan: 'free' }, { stack: stack.addresses });
    const clients = await Promise.all(
      [0, 1, 2].map((node) => openClient({ url: nodeUrl(node, stack.addresses), token })),
    );
    for (const client of clients) await client.welcome();
    // An allowance of ten per day.
    const calls = Array.from({ length: 15 }, (_, at) => {
      return callTool(clients[at % NODES] as TestClient, 'create_thread', { title: `${at}` });
    });
    const answers = await Promise.all(calls);
    const made = answers.filter(({ type }) => type === 'tool_result').length;
    const refused = answers.filter(({ type }) => type === 'error').length;
    expect({ made, refused }).toEqual({ made: 10, refused: 5 });
    await until(async () => (await billedRecords(userId, stack.addresses)).length === 10);
  });

  it.each(TRANSPORTS)(
    'B222 continues over %s on another node when a gateway is killed during a run',
    async (transport) => {
      const { token, userId } = mintToken({}, { stack: stack.addresses });
      const [, victim, refuge] = stack.gateways;
      const before = await openClient({ transport, token, url: victim?.url ?? '' });
      const { epoch } = await before.welcome();
      before.send('agent_request', { message: 'How is my workload doing?', request_id: userId });
      await before.waitFor('agent_started');
      await victim?.kill('SIGKILL');
      await before.closed;
      const after = seqs(before.events).at(-1) ?? 0;
      const position =
        transport === 'ws' ? { query: { after: `${after}`, epoch: `${epoch}` } } : { auth: { after, epoch } };
      const rest = await openClient({ transport, token, url: refuge?.url ?? '', ...position });
      await rest.waitFor('resumed');
      await victim?.start();
      // A run takes a few milliseconds, so it may have ended before the kill.
      const isOver = ({ events }: TestClient) => events.some(({ type }) => type === 'agent_completed');
      if (!isOver(before)) await rest.waitFor('agent_completed');
      const all = [...seqs(before.events), ...seqs(rest.events)];
      expect(all).toEqual(upTo(all.length));
    },
  );

  it('B225 drains a gateway: its clients are sent elsewhere, and it ends with 0', async () => {
    const [, , leaving] = stack.gateways;
    const tokens = userOfEachShard();
    const clients = await Promise.all(tokens.map(({ token }) => openClient({ token, url: leaving?.url ?? '' })));
    for (const client of clients) await client.welcome();
    expect(await leaving?.stop()).toEqual({ code: 0, signal: null });
    for (const client of clients) expect(await client.closed).toEqual({ code: 1012, reason: 'SERVER_DRAINING' });
    await leaving?.start();
    const admin = await startAdmin(stack.addresses);
    for (const { userId } of tokens) {
      expect((await admin('GET', `/v1/users/${userId}/connections`)).body.connections).toEqual([]);
    }
  });

  it('serves the other shards while a master is down, and its users again once a replica has taken over', async () => {
    const users = userOfEachShard();
    const clients = await Promise.all(
      users.map(async ({ token }, at) => {
        const client = await openClient({ token, url: nodeUrl(at % NODES, stack.addresses) });
        await client.welcome();
        await runToEnd(client);
        return client;
      }),
    );
    const [lost, ...others] = clients;
    const victim = cluster.masters[0] as RedisProcess;
    await victim.kill('SIGKILL');
    // These users need nothing on the lost shard, except the queue of runs for one of three.
    for (const client of others) {
      const { type, fields } = await callTool(client, 'list_agents');
      expect({ type, code: fields.code }).toEqual({ type: 'tool_result', code: undefined });
    }
    // No client whose shard is lost receives a success for work that was not done.
    const served = async () => (await callTool(lost as TestClient, 'list_agents')).type === 'tool_result';
    await until(served, { timeoutMs: 20_000, everyMs: 200, label: 'the shard to be served by its replica' });
    // Later events come from the new master, to which every node has subscribed by now.
    for (const client of clients) await runToEnd(client, { message: 'Hello' });
    for (const client of clients) {
      const seen = seqs(client.events);
      expect(seen).toEqual(upTo(seen.length));
    }
    await victim.restart();
    await cluster.healthy();
    const reports = await Reports.open(stack.addresses, new Date(Date.now() - 3_600_000));
    await until(async () => (await reports.verify()).ok, { label: 'the proof of the ledger' });
  }, 90_000);
});
