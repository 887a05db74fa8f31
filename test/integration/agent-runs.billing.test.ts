import { beforeAll, describe, expect, it } from '@jest/globals';
import { Accounts } from '../../src/accounts/accounts.ts';
import { runToEnd, type SeenRun } from '../support/agent-runs.ts';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { type Leases, openLeases } from '../support/leases.ts';
import { billedRecords } from '../support/ledger.ts';
import { nodeUrl } from '../support/nodes.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken, serviceToken, validToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

const completedTools = ({ events }: SeenRun) =>
  events.filter(({ type }) => type === 'tool_completed').map((e) => e.fields);

/** Resolves with the user's ledger records once there are this many. Workers ingest twice per second. */
async function billed(userId: string, count: number) {
  await until(async () => (await billedRecords(userId)).length >= count, { timeoutMs: 10_000, label: 'the records' });
  return billedRecords(userId);
}

describe.each(TRANSPORTS)('a tool that ran in a run over %s', (transport) => {
  it('B90 is in the ledger under the id of its tool_completed, with user, tool, time and units', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const client = await openClient({ transport, token });
    const run = await runToEnd(client);
    const [completed] = completedTools(run);
    const [record, ...others] = await billed(userId, 1);
    expect(others).toEqual([]);
    // Every record of a ledger but the first has it.
    const { content_before: _, ...seen }: Record<string, unknown> = record ?? {};
    expect(seen).toEqual({
      id: completed?.usage_record_id,
      sequence: expect.any(Number),
      user_id: userId,
      plan: 'pro',
      tool: 'analyze_workload',
      permission: 'analytics',
      status: 'success',
      units: 5,
      run_id: run.runId,
      thread_id: run.accepted.fields.thread_id,
      request_id: run.accepted.fields.request_id,
      idempotency_key: null,
      transport: transport === 'ws' ? 'websocket' : 'socketio',
      started_at: expect.stringMatching(/Z$/),
      completed_at: expect.stringMatching(/Z$/),
      duration_ms: completed?.duration_ms,
      period: String(record?.completed_at).slice(0, 13),
      salt: expect.stringMatching(/^[\w-]{22}$/),
      hash: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    const [from, to] = [record?.started_at, record?.completed_at].map((time) => Date.parse(String(time)));
    expect(Number(to) - Number(from)).toBe(record?.duration_ms);
    expect(Math.abs(Number(to) - Date.now())).toBeLessThan(30_000);
  });

  it('is on it once, as the sets of ids over several runs show', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const client = await openClient({ transport, token });
    const messages = ['How is my usage?', 'Is the system healthy?', 'Start a thread called "x"', 'hello'];
    const runs = await Promise.all(messages.map((message) => runToEnd(client, { message })));
    const seen = runs.flatMap(completedTools).map(({ usage_record_id }) => String(usage_record_id));
    expect(seen.length).toBeGreaterThanOrEqual(5);
    const ids = (await billed(userId, seen.length)).map(({ id }) => id);
    expect(ids.toSorted()).toEqual(seen.toSorted());
  });
});

describe.each(TRANSPORTS)('a tool that the plan does not include, over %s', (transport) => {
  it('B76 B84 ends as tool_completed without success, with what is missing and which plan has it', async () => {
    const { token, userId } = mintToken({ plan: 'free' });
    const client = await openClient({ transport, token });
    const run = await runToEnd(client);
    const [refused, ...open] = completedTools(run);
    expect(refused).toMatchObject({
      tool_name: 'analyze_workload',
      success: false,
      error: {
        code: 'PERMISSION_DENIED',
        message: 'Missing permissions: analytics',
        retryable: false,
        required_permissions: ['analytics'],
        missing_permissions: ['analytics'],
        upgrade_path: 'pro',
      },
      usage_record_id: null,
      duration_ms: 0,
      status: 'completed',
    });
    expect(refused).not.toHaveProperty('result');

    const end = run.events.at(-1);
    expect(end?.type).toBe('agent_completed');
    expect(String(end?.fields.final_response)).toMatch(/.{50,}/);
    expect(end?.fields.tools_used).toEqual(open.map(({ tool_name }) => tool_name));
    expect(open.length).toBeGreaterThan(0);

    // The records of the executed tools have arrived. A record of the refused tool would have arrived earlier.
    const records = await billed(userId, open.length);
    expect(records.map(({ tool }) => tool)).toEqual(open.map(({ tool_name }) => tool_name));
    expect(records.map(({ id }) => id)).toEqual(open.map(({ usage_record_id }) => usage_record_id));
  });
});

describe('the plan that an operator stored', () => {
  let accounts: Accounts;
  let leases: Leases;
  beforeAll(async () => {
    leases = await openLeases();
    accounts = new Accounts(leases);
  });

  it('wins over the token’s: what it adds can be used', async () => {
    const { token, userId } = mintToken({ plan: 'free' });
    await accounts.setPlan(userId, 'pro');
    const client = await openClient({ token });
    expect(await client.welcome()).toMatchObject({ plan: 'pro', limits: { max_message_rate: 60 } });
    const [completed] = completedTools(await runToEnd(client));
    expect(completed).toMatchObject({ tool_name: 'analyze_workload', success: true });
    expect((await billed(userId, 1))[0]).toMatchObject({ plan: 'pro' });
  });

  it('wins over the token’s: what it takes away can be used no more', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    await accounts.setPlan(userId, 'free');
    const client = await openClient({ token });
    expect(await client.welcome()).toMatchObject({ plan: 'free', permissions: ['basic'] });
    const [completed] = completedTools(await runToEnd(client));
    expect(completed).toMatchObject({ tool_name: 'analyze_workload', success: false });
  });

  it('B242 reaches a connection at once, and what it takes away can be used no more', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const client = await openClient({ token });
    await client.welcome();
    const watch = await Stopwatch.start();
    await accounts.setPlan(userId, 'free');
    const changed = await client.waitFor('plan_changed');
    expect(changed.at - watch.startedAt).toBeLessThan(watch.allow(1_000));
    expect(changed.fields).toMatchObject({ plan: 'free', permissions: ['basic'] });
    const [completed] = completedTools(await runToEnd(client));
    expect(completed).toMatchObject({ tool_name: 'analyze_workload', success: false });
  });
});

describe('GET /v1/usage/records', () => {
  const get = (authorization: string | undefined, query = '') => {
    return fetch(`${nodeUrl(0)}/v1/usage/records${query}`, { headers: authorization ? { authorization } : {} });
  };

  it('is for services with the scope usage:read only', async () => {
    const cases = [
      [undefined, 401, 'NO_TOKEN'],
      ['Bearer', 401, 'INVALID_FORMAT'],
      [`Bearer ${validToken({ plan: 'developer' })}`, 401, 'VALIDATION_FAILED'],
      [`Bearer ${await serviceToken('admin')}`, 403, 'PERMISSION_DENIED'],
    ] as const;
    for (const [authorization, status, code] of cases) {
      const response = await get(authorization);
      expect([response.status, (await response.json()) as unknown]).toEqual([
        status,
        { error: expect.objectContaining({ code }) },
      ]);
    }
    expect((await get(`Bearer ${await serviceToken('usage:read')}`)).status).toBe(200);
  });

  it('gives the same bytes twice, and the records as lines where these are asked for', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const client = await openClient({ token });
    await runToEnd(client, { message: 'hello' });
    await billed(userId, 2);
    const authorization = `Bearer ${await serviceToken('usage:read')}`;
    const texts = await Promise.all([1, 2].map(async () => (await get(authorization, '?limit=2')).text()));
    expect(texts[0]).toBe(texts[1]);
    const { records, next_cursor } = JSON.parse(texts[0] ?? '') as { records: unknown[]; next_cursor: string };
    expect(records).toHaveLength(2);
    const lines = await fetch(`${nodeUrl(1)}/v1/usage/records?limit=2`, {
      headers: { authorization, accept: 'application/x-ndjson' },
    });
    expect(lines.headers.get('content-type')).toContain('application/x-ndjson');
    expect(lines.headers.get('x-next-cursor')).toBe(next_cursor);
    expect(
      (await lines.text())
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(records);
  });

  it.each(['?limit=0', '?limit=1001', '?wait=21', '?cursor=-1', '?cursor=x', '?user_id='])(
    'refuses %s with FORMAT_ERROR',
    async (query) => {
      const response = await get(`Bearer ${await serviceToken('usage:read')}`, query);
      expect([response.status, (await response.json()) as unknown]).toEqual([
        400,
        { error: expect.objectContaining({ code: 'FORMAT_ERROR' }) },
      ]);
    },
  );

  it('waits for the next record on request, and answers as soon as it is there', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const authorization = `Bearer ${await serviceToken('usage:read')}`;
    const waiting = get(authorization, `?wait=10&user_id=${userId}`);
    const client = await openClient({ token });
    const [completed] = completedTools(await runToEnd(client));
    const { records } = (await (await waiting).json()) as { records: { id: string }[] };
    expect(records.map(({ id }) => id)).toEqual([completed?.usage_record_id]);
  });
});
