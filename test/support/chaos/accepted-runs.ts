import { setTimeout as delay } from 'node:timers/promises';
import { expect } from '@jest/globals';
import { connectRedis, disconnectRedis } from '../../../src/redis/client.ts';
import { Keys } from '../../../src/redis/keys.ts';
import { openClient, type TestClient } from '../clients.ts';
import { silentLogger } from '../core.ts';
import { closeAfter } from '../open-resources.ts';
import { isTerminal, isTerminalType } from '../runs.ts';
import { StackProcesses } from '../stack-processes.ts';
import { mintToken } from '../tokens.ts';
import { until } from '../until.ts';

const USERS = 6;
/** Runs per user that wait for their end: more than the worker executes at once, so some are queued. */
const IN_FLIGHT = 8;
const RUN_SECONDS = 4;
/** Longer than the second that a power cut costs. */
const WORK_MS = 1_500;

export interface AcceptedRuns {
  readonly accepted: number;
  /** Accepted runs without a terminal event, in the log or at the client. */
  readonly withoutEnd: number;
  readonly timedOut: number;
}

/** A Redis that loses writes on demand. */
export interface FailingRedis {
  readonly url: string;
  /**
   * Resolves when a Redis without some of the acknowledged writes serves the same URL.
   * @param worked resolves when runs were accepted since it was called
   */
  readonly fail: (worked: () => Promise<unknown>) => Promise<unknown>;
}

interface Caller {
  readonly client: TestClient;
  readonly userId: string;
}

/**
 * Keeps runs going on two gateways and two workers while Redis fails, and counts those that have no end afterwards.
 * Fails if a run has two ends.
 */
export async function runsThroughLoss(redis: FailingRedis): Promise<AcceptedRuns> {
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
  await redis.fail(worked);
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
