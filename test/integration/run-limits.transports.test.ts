import { describe, expect, it } from '@jest/globals';
import { freshRequestId, runToEnd } from '../support/agent-runs.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { openLeases } from '../support/leases.ts';
import { nodeUrl } from '../support/nodes.ts';
import { mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';

const HOUR_MS = 3_600_000;
const BUCKET_MS = 300_000;
const FREE = { threads: 5, inFlight: 5, perHour: 60 };

async function connect(transport: (typeof TRANSPORTS)[number], token: string, node = 0): Promise<TestClient> {
  const client = await openClient({ transport, token, url: nodeUrl(node) });
  await client.welcome();
  return client;
}

/** Resolves with the error of a refused request. */
async function refused(client: TestClient, fields: Record<string, unknown> = {}) {
  const request_id = freshRequestId();
  client.send('agent_request', { message: 'Hello', ...fields, request_id });
  const answer = await client.waitFor(
    ({ type, fields: seen }) => type !== 'typing_ack' && seen.request_id === request_id,
  );
  return { type: answer.type, ...answer.fields };
}

describe.each(TRANSPORTS)('a plan over %s', (transport) => {
  it('holds the threads that requests begin as those of create_thread, and connections go on at the limit', async () => {
    const { token } = mintToken({ plan: 'free' });
    const client = await connect(transport, token);
    for (let at = 1; at < FREE.threads; at++) await runToEnd(client, { message: 'Hello', thread_id: `thread_${at}` });
    const made = await callTool(client, 'create_thread', { title: 'the last one' });
    expect(made.fields).toMatchObject({ success: true, result: { threads: FREE.threads } });

    const wall = {
      code: 'QUOTA_EXCEEDED',
      retryable: false,
      limit: FREE.threads,
      resets_at: null,
      upgrade_path: 'pro',
    };
    expect(await refused(client, { thread_id: 'thread_new' })).toMatchObject({ type: 'error', ...wall });
    expect((await callTool(client, 'create_thread', {})).fields).toMatchObject({ success: false, error: wall });
    const other = await connect(transport, token, 1);
    const { accepted } = await runToEnd(other, { message: 'Hello' });
    const { thread_id } = made.fields.result as { thread_id: string };
    expect(accepted.fields.thread_id).toBe(thread_id);
    // Another thread changes; the connection keeps its own.
    await runToEnd(client, { message: 'Hello', thread_id: 'thread_1' });
    expect((await runToEnd(other, { message: 'Hello' })).accepted.fields.thread_id).toBe(thread_id);
  });

  it('holds the runs of an hour, on every node, and says when the next one can start', async () => {
    const { token, userId } = mintToken({ plan: 'free' });
    const { redis, keys } = await openLeases();
    const bucket = Math.floor(Date.now() / BUCKET_MS);
    await redis.hset(keys.user(userId).quota, 'runs_per_hour', `${bucket} ${FREE.perHour - 1}`);
    const client = await connect(transport, token);
    const { accepted } = await runToEnd(client, { message: 'Hello' });
    const other = await connect(transport, token, 1);
    const answer = await refused(other);
    const resets_at = new Date((bucket + 1) * BUCKET_MS + HOUR_MS).toISOString();
    expect(answer).toMatchObject({
      type: 'error',
      code: 'QUOTA_EXCEEDED',
      retryable: false,
      upgrade_path: 'pro',
      resets_at,
      rate_limit_status: { limits: { runs_in_flight: FREE.inFlight, runs_per_hour: FREE.perHour }, remaining: 0 },
    });
    const { request_id, run_id } = accepted.fields;
    other.send('agent_request', { message: 'Hello', request_id });
    const again = await other.waitFor(
      ({ type, fields }) => type === 'agent_accepted' && fields.request_id === request_id,
    );
    expect(again.fields.run_id).toBe(run_id);
    other.send('usage_summary', {});
    expect((await other.waitFor('usage_summary')).fields).toMatchObject({
      runs: {
        in_flight: { runs: 0, limit: FREE.inFlight },
        per_hour: { name: 'runs_per_hour', limit: FREE.perHour, used: FREE.perHour, remaining: 0, resets_at },
      },
    });
  });

  it('holds the runs in flight, and the connection stays open', async () => {
    const { token, userId } = mintToken({ plan: 'free' });
    const { redis, keys } = await openLeases();
    const { runsInFlight } = keys.user(userId);
    const members = Array.from({ length: FREE.inFlight }, (_, at) => [`${Date.now() + 60_000}`, `run_${at}`]).flat();
    await redis.zadd(runsInFlight, ...members);
    const client = await connect(transport, token);
    expect(await refused(client)).toMatchObject({ code: 'RATE_LIMITED', retryable: true, retry_after_ms: 1_000 });
    await redis.zrem(runsInFlight, 'run_0');
    await runToEnd(client, { message: 'Hello' });
  });
});
