import { describe, expect, it } from '@jest/globals';
import { runToEnd } from '../support/agent-runs.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { billedRecords } from '../support/ledger.ts';
import { nodeUrl } from '../support/nodes.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { type AccessClaims, mintToken, serviceToken } from '../support/tokens.ts';
import { callTool, eventsOfCall } from '../support/tool-calls.ts';
import { until } from '../support/until.ts';

/** Returns the tallies of a user, over all tools. */
async function tallied(userId: string): Promise<Record<string, unknown> | undefined> {
  const headers = { authorization: `Bearer ${await serviceToken('usage:read')}` };
  const response = await fetch(`${nodeUrl(2)}/v1/usage/tallies?user_id=${userId}`, { headers });
  return ((await response.json()) as { tallies: Record<string, unknown>[] }).tallies[0];
}

describe.each(TRANSPORTS)('a tool_call over %s', (transport) => {
  const connect = async (
    claims: Partial<AccessClaims> = {},
  ): Promise<{ client: TestClient; userId: string; token: string }> => {
    const { token, userId } = mintToken(claims);
    const client = await openClient({ transport, token });
    await client.welcome();
    return { client, userId, token };
  };

  it('B90 is answered, stands in the log with both events, and is on the bill once', async () => {
    const { client, userId } = await connect({ plan: 'pro' });
    const { type, fields } = await callTool(client, 'create_thread', { title: 'Mine' });
    expect([type, fields]).toEqual([
      'tool_result',
      expect.objectContaining({
        tool: 'create_thread',
        success: true,
        result: expect.objectContaining({ title: 'Mine' }),
        repeated: false,
        tool_call_id: expect.stringMatching(/^call_/),
      }),
    ]);
    await until(() => eventsOfCall(client, fields.tool_call_id).length === 2);
    const events = eventsOfCall(client, fields.tool_call_id);
    expect(events.map((event) => [event.type, event.fields])).toEqual([
      [
        'tool_executing',
        expect.objectContaining({
          run_id: null,
          agent_name: null,
          user_id: userId,
          request_id: fields.request_id,
          arguments: { title: 'Mine' },
        }),
      ],
      [
        'tool_completed',
        expect.objectContaining({
          run_id: null,
          success: true,
          result: fields.result,
          usage_record_id: fields.usage_record_id,
        }),
      ],
    ]);
    await until(async () => (await billedRecords(userId)).length > 0, { timeoutMs: 10_000 });
    expect(await billedRecords(userId)).toEqual([
      expect.objectContaining({
        id: fields.usage_record_id,
        tool: 'create_thread',
        units: 1,
        run_id: null,
        status: 'success',
        request_id: fields.request_id,
        transport: transport === 'ws' ? 'websocket' : 'socketio',
      }),
    ]);
  });

  it('B75 B77 B94 returns the limits it counts against, and keeps counting across sessions and runs', async () => {
    const { client } = await connect({ plan: 'pro' });
    const { fields } = await callTool(client, 'analyze_workload');
    expect(fields.rate_limit_status).toEqual({
      allowed: true,
      limits: { analytics_per_hour: 200, analytics_per_day: 2_000, analyze_workload_per_day: 500 },
      current_usage: { analytics_per_hour: 1, analytics_per_day: 1, analyze_workload_per_day: 1 },
      limit: 200,
      used: 1,
      remaining: 199,
      resets_at: null,
    });
    await runToEnd(client, { message: 'How is my workload doing?' });
    const { fields: third } = await callTool(client, 'analyze_workload');
    expect(third.rate_limit_status).toMatchObject({ used: 3, resets_at: expect.any(String) });
  });

  it.each([
    ['analyze_workload', 'free', 'PERMISSION_DENIED', { upgrade_path: 'pro', missing_permissions: ['analytics'] }],
    ['generate_synthetic_data', 'free', 'PERMISSION_DENIED', { upgrade_path: 'pro' }],
    ['cost_analyzer', 'pro', 'PERMISSION_DENIED', { upgrade_path: 'enterprise' }],
    ['user_admin', 'enterprise', 'PERMISSION_DENIED', { upgrade_path: null, missing_requirements: ['role:admin'] }],
    ['rate_limit_test_tool', 'free', 'TOOL_NOT_FOUND', {}],
    ['query_corpus', 'pro', 'TOOL_NOT_AVAILABLE', {}],
  ])(
    'B76 B80 B258 refuses %s to the plan %s with %s, appends nothing and bills nothing',
    async (tool, plan, code, fields) => {
      const { client, userId } = await connect({ plan });
      const refused = await callTool(client, tool, tool === 'query_corpus' ? { corpus: 'a', query: 'b' } : {});
      expect([refused.type, refused.fields]).toEqual(['error', expect.objectContaining({ code, ...fields })]);
      await callTool(client, 'list_agents');
      expect(
        client.events.filter(
          (event) =>
            typeof event.fields.tool_name === 'string' && event.fields.tool_name === tool && event.type !== 'error',
        ),
      ).toEqual([]);
      await until(async () => (await billedRecords(userId)).length === 1, { timeoutMs: 10_000 });
      // Counted, and not billed.
      await until(async () => (await tallied(userId))?.refusals === 1, { timeoutMs: 10_000, label: 'the tally' });
      expect(await tallied(userId)).toMatchObject({ executions: 1, refusals: 1 });
      // Counted, and not billed.
      const hours = { timeoutMs: 10_000, label: 'the tally of the refusal' };
      await until(async () => (await tallied(userId))?.refusals === 1, hours);
      expect(await tallied(userId)).toMatchObject({ executions: 1, refusals: 1 });
    },
  );

  it('refuses arguments that are not those of the tool, and says what is wrong', async () => {
    const { client } = await connect();
    for (const args of [{ hours: 0 }, { hours: '1' }, { days: 2 }]) {
      const { fields } = await callTool(client, 'analyze_workload', args);
      expect(fields).toMatchObject({ code: 'FORMAT_ERROR', tool_name: 'analyze_workload' });
    }
  });

  it('under an idempotency key is executed and charged once, on any node and however often it is sent', async () => {
    const { token, userId } = mintToken({ plan: 'pro' });
    const clients = await Promise.all([0, 1, 2].map((node) => openClient({ transport, token, url: nodeUrl(node) })));
    const answers = await Promise.all(
      [...clients, ...clients].map((client) =>
        callTool(client, 'create_thread', { title: 'Once' }, { idempotency_key: 'k1' }),
      ),
    );
    const [first] = answers;
    expect(
      new Set(answers.map(({ fields }) => JSON.stringify([fields.result, fields.usage_record_id]))),
    ).toHaveProperty('size', 1);
    expect(answers.filter(({ fields }) => fields.repeated === false)).toHaveLength(1);
    const [client] = clients;
    if (!client) throw new Error('no client');
    const later = await callTool(client, 'create_thread', { title: 'Once' }, { idempotency_key: 'k1' });
    expect(later.fields).toMatchObject({ repeated: true, result: first?.fields.result });
    const other = await callTool(client, 'create_thread', { title: 'Twice' }, { idempotency_key: 'k1' });
    expect(other.fields).toMatchObject({ code: 'IDEMPOTENCY_CONFLICT', retryable: false });
    await callTool(client, 'list_agents');
    await until(async () => (await billedRecords(userId)).length >= 2, { timeoutMs: 10_000 });
    expect(
      (await billedRecords(userId)).map(({ tool, idempotency_key }) => [tool, idempotency_key]).toSorted(),
    ).toEqual([
      ['create_thread', 'k1'],
      ['list_agents', null],
    ]);
  });

  it('B88 B91 of the free plan is refused after ten threads per day, not retryable and with an upgrade path', async () => {
    const { client } = await connect({ plan: 'free' });
    // The plan allows five threads: from the sixth on the tool fails, and a failure is an execution.
    for (let i = 0; i < 10; i++) await callTool(client, 'create_thread');
    const { type, fields } = await callTool(client, 'create_thread');
    expect([type, fields]).toEqual([
      'error',
      expect.objectContaining({
        code: 'QUOTA_EXCEEDED',
        retryable: false,
        upgrade_path: 'pro',
        resets_at: expect.stringMatching(/^\d{4}-/),
        rate_limit_status: expect.objectContaining({ allowed: false, limit: 10, used: 10, remaining: 0 }),
      }),
    ]);
    expect(Date.parse(String(fields.resets_at)) - Date.now()).toBeGreaterThan(23 * 3_600_000);
  });

  it('B88 meets the same limit inside a run, where the tool completes with the refusal', async () => {
    const { client, userId } = await connect({ plan: 'free' });
    for (let i = 0; i < 10; i++) await callTool(client, 'create_thread');
    const { events } = await runToEnd(client, { message: 'Please create a thread called "one more"' });
    const completed = events.find(
      ({ type, fields }) => type === 'tool_completed' && fields.tool_name === 'create_thread',
    );
    expect(completed?.fields).toMatchObject({
      success: false,
      usage_record_id: null,
      error: { code: 'QUOTA_EXCEEDED', upgrade_path: 'pro' },
    });
    await until(async () => (await billedRecords(userId)).length >= 10, { timeoutMs: 10_000 });
    expect((await billedRecords(userId)).filter(({ tool }) => tool === 'create_thread')).toHaveLength(10);
  });

  it('B92 of the enterprise plan is not slowed by limits', async () => {
    const { client } = await connect({ plan: 'enterprise' });
    const watch = await Stopwatch.start();
    for (let i = 0; i < 15; i++) {
      const { fields } = await callTool(client, 'create_thread');
      expect(fields).toMatchObject({ success: true, rate_limit_status: { limit: null } });
    }
    expect(watch.ms).toBeLessThan(watch.allow(5_000));
  });

  it('B89 delays neither pings nor other calls, of which a connection has at most eight in flight', async () => {
    const { client } = await connect({ plan: 'enterprise' });
    const calls = Array.from({ length: 20 }, () => callTool(client, 'system_health'));
    client.send('ping', { timestamp: 'p' });
    await client.waitFor('pong');
    const answers = await Promise.all(calls);
    for (const { type, fields } of answers) {
      if (type === 'error') expect(fields).toMatchObject({ code: 'RATE_LIMITED', retry_after_ms: expect.any(Number) });
    }
    expect(answers.filter(({ type }) => type === 'tool_result').length).toBeGreaterThanOrEqual(8);
  });
});

describe('an acknowledged tool_call', () => {
  it('over Socket.IO gets its result as the acknowledgement', async () => {
    const client = await openClient({ transport: 'socketio', token: mintToken({ plan: 'pro' }).token });
    await client.welcome();
    expect(await client.call('tool_call', { tool: 'list_agents' })).toMatchObject({
      success: true,
      tool: 'list_agents',
    });
    expect(await client.call('tool_call', { tool: 'nothing' })).toMatchObject({ error: { code: 'TOOL_NOT_FOUND' } });
  });
});
