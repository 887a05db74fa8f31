import { afterEach, describe, expect, it } from '@jest/globals';
import type { Mix } from '../../load/lib/mix.ts';
import { VirtualUsers } from '../../load/lib/virtual-users.ts';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { silentLogger } from '../support/core.ts';
import { checkoutOf, earlierVersion } from '../support/earlier-version.ts';
import { billedRecords } from '../support/ledger.ts';
import { startLoadBalancer } from '../support/load-balancer.ts';
import { describeWith, HAPROXY } from '../support/programs.ts';
import { type StackProcess, type StackProcesses, startStack } from '../support/stack.ts';
import { mintToken, serviceToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const isLong = process.env.UPGRADE_USERS !== undefined;
/** `npm run test:upgrade` sets a hundred, and runs the other orders too. */
const USERS = Number(process.env.UPGRADE_USERS ?? 10);
const TURNS_PER_SECOND = isLong ? USERS : 2 * USERS;
/** Runs that complete while both versions serve, between two processes. */
const RUNS_BETWEEN = isLong ? 2 * USERS : 5;
const itInLongForm = isLong ? it : it.skip;
const TIMEOUT_MS = isLong ? 300_000 : 90_000;

const MIX: Mix = {
  transports: { socketio_websocket: 1, socketio_polling: 0, websocket: 1 },
  turns: { agent_request: 6, tool_call: 2, ping: 1, resume: 2 },
  messages: ['How is my workload doing?', 'Hello'],
  tools: [{ tool: 'list_agents', arguments: {} }],
  think_ms: { min: 0, max: 200 },
};

const version = earlierVersion();
const describeUpgrade = version === undefined ? describe.skip : describe;

describeUpgrade(`a rolling upgrade from ${version}`, () => {
  describeWith(HAPROXY, 'under load', () => {
    let load: VirtualUsers | undefined;
    afterEach(() => load?.close());

    /** Starts the earlier version with users that call agents and tools, and returns it when runs complete. */
    async function startEarlier(): Promise<{ stack: StackProcesses; users: VirtualUsers; tokens: UserToken[] }> {
      const env = { MESSAGE_RATE_PER_MINUTE: '10000', TRUSTED_PROXY_HOPS: '1', CONNECTION_LEASE_SECONDS: '15' };
      const earlierRoot = checkoutOf(version ?? '');
      const stack = await startStack({ gateways: 3, workers: 2, env, earlierRoot });
      const { url } = await startLoadBalancer(
        stack.gateways.map((gateway) => gateway.url),
        { affinity: false },
      );
      const tokens = Array.from({ length: USERS }, () => {
        return mintToken({ plan: 'developer' }, { stack: stack.addresses, expiresInSeconds: 7_200 });
      });
      const users = new VirtualUsers({
        ...{ url, mix: MIX, tokens: tokens.map(({ token }) => token), iterationsPerSecond: TURNS_PER_SECOND },
        transports: tokens.map((_, at) => (at % 2 === 0 ? 'websocket' : 'socketio_websocket')),
        ...{ connectsPerSecond: 100, threads: 1 },
      });
      load = users;
      await users.connect();
      users.start();
      await completed(users, RUNS_BETWEEN);
      return { stack, users, tokens };
    }

    function completed(users: VirtualUsers, more: number): Promise<unknown> {
      const wanted = users.measures.counts.runs_completed + more;
      const isDone = () => users.measures.counts.runs_completed >= wanted;
      return until(isDone, { timeoutMs: 60_000, label: `${more} completed runs` });
    }

    /** Ends the load, and checks that no run, event or record was lost or doubled. */
    async function expectNothingLost({ stack, users, tokens }: Awaited<ReturnType<typeof startEarlier>>) {
      await users.end(60_000);
      const { counts, errors } = users.measures;
      process.stdout.write(`rolling upgrade from ${version}: ${JSON.stringify({ ...counts, errors })}\n`);
      expect(counts).toMatchObject({
        ...{ events_lost: 0, events_repeated: 0, resume_failures: 0 },
        ...{ turns_failed: 0, turns_unfinished: 0, turns_dropped: 0 },
        ...{ turns_completed: counts.turns_due, runs_completed: counts.runs_requested },
      });
      const userIds = tokens.map(({ userId }) => userId);
      const { calls, ends } = await recorded(stack, userIds);
      expect(ends).toEqual({ agent_completed: counts.runs_requested });
      expect(calls).toBeGreaterThan(counts.runs_requested / 2);
      const records = async () => (await billedRecords(undefined, stack.addresses)).map(({ id }) => id);
      await until(async () => (await records()).length >= calls, { timeoutMs: 20_000, label: `${calls} records` });
      const ids = await records();
      expect({ records: ids.length, distinct: new Set(ids).size }).toEqual({ records: calls, distinct: calls });
      const token = await serviceToken('usage:read', { stack: stack.addresses });
      const headers = { authorization: `Bearer ${token}` };
      const verified = await fetch(`${stack.addresses.gateways[0]?.url}/v1/usage/verify`, { headers });
      expect(await verified.json()).toMatchObject({ ok: true, problem: null, checked_records: calls });
    }

    it(
      'loses and repeats nothing when workers are upgraded before gateways',
      async () => {
        const upgrade = await startEarlier();
        const { workers, gateways } = upgrade.stack;
        await each([...workers, ...gateways], async (one) => {
          await one.switchTo('current');
          await completed(upgrade.users, RUNS_BETWEEN);
        });
        await expectNothingLost(upgrade);
      },
      TIMEOUT_MS,
    );

    itInLongForm(
      'loses and repeats nothing when gateways are upgraded together with the workers',
      async () => {
        const upgrade = await startEarlier();
        const { workers, gateways } = upgrade.stack;
        await each([gateways[0], workers[0], gateways[1], workers[1], gateways[2]], async (one) => {
          await one?.switchTo('current');
        });
        await completed(upgrade.users, RUNS_BETWEEN);
        await expectNothingLost(upgrade);
      },
      TIMEOUT_MS,
    );

    itInLongForm(
      'loses and repeats nothing when the processes of the earlier version are killed',
      async () => {
        const upgrade = await startEarlier();
        const { workers, gateways } = upgrade.stack;
        await each([...workers, ...gateways], async (one) => {
          await one.switchTo('current', 'SIGKILL');
          await completed(upgrade.users, RUNS_BETWEEN);
        });
        await expectNothingLost(upgrade);
      },
      TIMEOUT_MS,
    );

    itInLongForm(
      'can be undone: gateways first, then workers',
      async () => {
        const upgrade = await startEarlier();
        const { workers, gateways } = upgrade.stack;
        await each([...workers, ...gateways], (one) => one.switchTo('current'));
        await completed(upgrade.users, RUNS_BETWEEN);
        await each([...gateways, ...workers], async (one) => {
          await one.switchTo('earlier');
          await completed(upgrade.users, RUNS_BETWEEN);
        });
        await expectNothingLost(upgrade);
      },
      TIMEOUT_MS,
    );
  });
});

type UserToken = ReturnType<typeof mintToken>;

async function each<T extends StackProcess | undefined>(
  processes: readonly T[],
  work: (one: T) => Promise<void>,
): Promise<void> {
  for (const one of processes) await work(one);
}

/** Counts in the event logs of the users: tool calls that are billed, and terminal events by type. */
async function recorded({ addresses }: StackProcesses, userIds: readonly string[]) {
  const redis = await connectRedis(addresses.redisUrl, 'commands', silentLogger);
  const keys = new Keys(addresses.keyPrefix);
  const ends: Record<string, number> = {};
  let calls = 0;
  try {
    for (const userId of userIds) {
      for (const [, fields] of await redis.xrange(keys.user(userId).log, '-', '+')) {
        const type = fields[1] ?? '';
        if (type === 'tool_completed') calls += 1;
        if (/^agent_(completed|failed|cancelled)$/.test(type)) ends[type] = (ends[type] ?? 0) + 1;
      }
    }
    return { calls, ends };
  } finally {
    await disconnectRedis(redis);
  }
}
