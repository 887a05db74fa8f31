import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { UserData } from '../../src/accounts/user-data.ts';
import { RunReader } from '../../src/admin/run-reader.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { PARTITIONS, partitionOf } from '../../src/redis/keys.ts';
import { Threads } from '../../src/threads/threads.ts';
import { AgentServer } from '../support/agent-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RemoteRuns } from '../support/remote-runs.ts';
import { freshUserId } from '../support/tokens.ts';

const ANY = { agent: undefined, status: undefined };
/** Entries per partition that appendEvents keeps. */
const KEPT = 200;

let server: AgentServer;
let runs: RemoteRuns;
let reader: RunReader;
const row = () => ({ kind: 'http', url: server.url, secret: '$' + '{AGENT_SECRET}' });

beforeAll(async () => {
  server = await AgentServer.start();
  closeAfter('file', () => server.close());
  runs = await RemoteRuns.start();
  const threads = new Threads({ ...runs.core, clock: systemClock });
  reader = new RunReader({ ...runs.core, runs: runs.runs(row()), threads });
});

beforeEach(async () => {
  const { redis, keys } = runs.core;
  for (let partition = 0; partition < PARTITIONS; partition += 1) await redis.del(keys.unsuccessfulRuns(partition));
});

/** Executes a run whose agent answers with this line. */
async function runWith(line: object, fields: { readonly message?: string; readonly userId?: string } = {}) {
  server.serve = (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' }).end(`${JSON.stringify(line)}\n`);
  };
  const accepted = await runs.accept(row(), fields);
  const end = await runs.executor(row()).execute(await runs.claim(row(), accepted));
  return { ...accepted, end };
}
const fail = (fields?: Parameters<typeof runWith>[1]) => {
  return runWith({ type: 'error', code: 'broken', retryable: false }, fields);
};

async function listed(): Promise<string[]> {
  return (await reader.ofAll(ANY, 50, undefined)).runs.map(({ run_id }) => run_id);
}

describe('the list of unsuccessful runs', () => {
  it('has failed runs of all users with their code, the latest first, and no completed run', async () => {
    const first = await fail({ message: 'The first.' });
    const completed = await runWith({ type: 'done', final_response: 'Done.' });
    const second = await fail();
    expect([first.end, completed.end]).toEqual(['failed', 'completed']);
    expect(await listed()).toEqual([second.runId, first.runId]);
    const { runs: found } = await reader.ofAll({ ...ANY, status: 'failed' }, 50, undefined);
    expect(found[1]).toMatchObject({ user_id: first.userId, message: 'The first.', reason: 'AGENT_FAILED' });
    expect((await reader.ofAll({ ...ANY, status: 'cancelled' }, 50, undefined)).runs).toEqual([]);
    expect(await runs.core.redis.exists(runs.core.keys.user(completed.userId).unsuccessfulRuns)).toBe(
      [first, second].some(({ userId }) => partitionOf(userId) === partitionOf(completed.userId)) ? 1 : 0,
    );
  });

  it('follows the runs that have not ended, over all pages, also for runs that ended at once', async () => {
    const { redis, keys } = runs.core;
    const active = await runs.accept(row());
    for (let at = 0; at < 7; at += 1) {
      const [userId, runId] = [freshUserId(), `run_${at}`];
      await redis.hset(keys.user(userId).run(runId), { status: 'failed', accepted_at: 1, ended_at: 2 });
      await redis.zadd(keys.user(userId).unsuccessfulRuns, at < 5 ? 1_000 : 2_000, `${userId} ${runId}`);
    }
    const found: string[] = [];
    for (let cursor: string | undefined, pages = 0; pages < 200; pages += 1) {
      const page = await reader.ofAll(ANY, 2, cursor);
      found.push(...page.runs.map(({ run_id }) => run_id));
      if (page.next === null) break;
      cursor = page.next;
    }
    expect(found[0]).toBe(active.runId);
    expect(found.slice(1, 3).toSorted()).toEqual(['run_5', 'run_6']);
    expect(found.slice(3).toSorted()).toEqual(['run_0', 'run_1', 'run_2', 'run_3', 'run_4']);
    await expect(reader.ofAll({ ...ANY, status: 'failed' }, 2, '1-2')).rejects.toMatchObject({ code: 'FORMAT_ERROR' });
    await expect(reader.ofUser(active.userId, ANY, 2, 'u')).rejects.toMatchObject({ code: 'FORMAT_ERROR' });
  });

  it('keeps the latest entries of a partition, for a day after the last', async () => {
    const { redis, keys } = runs.core;
    const userId = freshUserId();
    const key = keys.user(userId).unsuccessfulRuns;
    for (let at = 0; at < KEPT + 10; at += 1) await redis.zadd(key, at, `${userId} run_${at}`);
    const { runId } = await fail({ userId });
    expect(await redis.zcard(key)).toBe(KEPT);
    expect(await redis.zrevrange(key, 0, 0)).toEqual([`${userId} ${runId}`]);
    expect(await redis.ttl(key)).toBeGreaterThan(24 * 3_600);
  });

  it('has no entry of an erased user', async () => {
    const { redis, keys } = runs.core;
    const { userId } = await fail();
    await redis.hset(keys.user(userId).account, 'erasure', 'erased_1');
    await new UserData(runs.core).erase(userId, 'erased_1');
    expect(await redis.exists(keys.user(userId).unsuccessfulRuns)).toBe(0);
  });
});
