import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, describe, expect, it } from '@jest/globals';
import { connectRedis, disconnectRedis } from '../../src/redis/client.ts';
import { Keys } from '../../src/redis/keys.ts';
import { type Failure, lossyRedis } from '../support/chaos/lossy-redis.ts';
import { openClient, type TestClient } from '../support/clients.ts';
import { silentLogger } from '../support/core.ts';
import { closeAfter } from '../support/open-resources.ts';
import { isTerminal, isTerminalType } from '../support/runs.ts';
import { StackProcesses } from '../support/stack-processes.ts';
import { mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** `npm run faults` sets more, and tests every failure. */
const ROUNDS = Number(process.env.FAULT_RUN_LOSSES ?? 1);
const EVERY_FAILURE = process.env.FAULT_RUN_LOSSES !== undefined;
const FAILURES: Failure[] = ['lagging fail-over', 'emptied', ...(EVERY_FAILURE ? (['power cut'] as const) : [])];
const USERS = 6;
/** Runs per user that wait for their end: more than the worker executes at once, so some are queued. */
const IN_FLIGHT = 8;
const RUN_SECONDS = 4;
/** Longer than the second that a power cut costs. */
const WORK_MS = 1_500;

const table: string[] = [];

interface Caller {
  readonly client: TestClient;
  readonly userId: string;
}

/** Keeps `IN_FLIGHT` runs of a user going until it is stopped. */
async function work({ client, userId }: Caller, stopped: AbortSignal): Promise<void> {
  for (let sent = 0; !stopped.aborted; sent++) {
    const request_id = `${userId}_${sent}`;
    client.send('agent_request', { message: 'How is my workload? Cost and health of the system?', request_id });
    await until(() => stopped.aborted || sent - ended(client).size < IN_FLIGHT, { everyMs: 1, timeoutMs: 1_000 }).catch(
      // Runs that Redis lost end later. The load continues beside them.
      () => undefined,
    );
  }
}

function runIds(client: TestClient, type: (type: string) => boolean): Set<string> {
  return new Set(client.events.flatMap((event) => (type(event.type) ? [String(event.fields.run_id)] : [])));
}

const accepted = (client: TestClient) => runIds(client, (type) => type === 'agent_accepted');
const ended = (client: TestClient) => runIds(client, isTerminalType);

/** Returns the terminal events in the log of a user, by run. */
async function endsInLog(redisUrl: string, prefix: string, userId: string): Promise<Map<string, number>> {
  const redis = await connectRedis(redisUrl, 'commands', silentLogger);
  const entries = await redis.xrange(new Keys(prefix).user(userId).log, '-', '+').finally(() => disconnectRedis(redis));
  const ends = new Map<string, number>();
  for (const [, fields] of entries) {
    if (!isTerminalType(fields[1] ?? '')) continue;
    const runId = String((JSON.parse(fields[7] ?? '{}') as { run_id?: string }).run_id);
    ends.set(runId, (ends.get(runId) ?? 0) + 1);
  }
  return ends;
}

async function round(failure: Failure): Promise<{ accepted: number; withoutEnd: number; timedOut: number }> {
  const redis = await lossyRedis(failure, 'everysec');
  const env = {
    MESSAGE_RATE_PER_MINUTE: '100000',
    RUN_TIMEOUT_SECONDS: String(RUN_SECONDS),
    RUN_CONCURRENCY: '4',
    EVENT_LOG_LENGTH: '1000000',
  };
  const stack = await StackProcesses.start({ gateways: 2, workers: 2, env, redisUrl: redis.url });
  closeAfter('test', () => stack.close());
  const { addresses } = stack;
  const callers = await Promise.all(
    Array.from({ length: USERS }, async (_, index): Promise<Caller> => {
      const { token, userId } = mintToken({ plan: 'enterprise' }, { stack: addresses });
      const client = await openClient({ token, url: addresses.gateways[index % 2]?.url ?? '' });
      await client.welcome();
      return { client, userId };
    }),
  );
  const stop = new AbortController();
  const working = callers.map((caller) => work(caller, stop.signal));
  await delay(WORK_MS);
  const acceptedRuns = () => callers.reduce((sum, { client }) => sum + accepted(client).size, 0);
  const worked = () => {
    const before = acceptedRuns();
    return until(() => acceptedRuns() > before + 3, { timeoutMs: 20_000, label: 'runs during the lag' });
  };
  await redis.fail(() => undefined, worked);
  await delay(WORK_MS);
  stop.abort();
  await Promise.all(working);

  const withoutEnd = async () => {
    const found = await Promise.all(
      callers.map(async ({ client, userId }) => {
        const inLog = await endsInLog(redis.url, addresses.keyPrefix, userId);
        expect([...inLog].filter(([, ends]) => ends > 1)).toEqual([]);
        const delivered = ended(client);
        return [...accepted(client)].filter((runId) => !inLog.has(runId) && !delivered.has(runId));
      }),
    );
    return found.flat().length;
  };
  // The deadline of a run, five seconds for its worker, and a period of the sweep.
  const limits = { timeoutMs: (RUN_SECONDS + 5 + 5 + 5) * 1_000, everyMs: 500 };
  await until(async () => (await withoutEnd()) === 0, limits).catch(() => undefined);
  const ends = callers.flatMap(({ client }) => client.events.filter(isTerminal));
  const timedOut = ends.filter(({ fields }) => JSON.stringify(fields.error ?? '').includes('RUN_TIMEOUT')).length;
  return { accepted: acceptedRuns(), withoutEnd: await withoutEnd(), timedOut };
}

afterAll(() => {
  if (!EVERY_FAILURE) return;
  process.stdout.write(
    `| failure | accepted | without an end | RUN_TIMEOUT |\n| --- | --- | --- | --- |\n${table.join('\n')}\n`,
  );
});

describe('every accepted run ends once', () => {
  it.each(FAILURES)(
    'although Redis loses acknowledged writes: %s',
    async (failure) => {
      const rounds: Awaited<ReturnType<typeof round>>[] = [];
      for (let at = 0; at < ROUNDS; at++) rounds.push(await round(failure));
      const sum = (name: 'accepted' | 'withoutEnd' | 'timedOut') => rounds.reduce((all, one) => all + one[name], 0);
      table.push(`| ${[failure, sum('accepted'), sum('withoutEnd'), sum('timedOut')].join(' | ')} |`);
      expect(sum('withoutEnd')).toBe(0);
    },
    ROUNDS * 60_000,
  );
});
