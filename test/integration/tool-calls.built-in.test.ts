import { describe, expect, it } from '@jest/globals';
import { openClient, TRANSPORTS } from '../support/clients.ts';
import { mintToken } from '../support/tokens.ts';
import { callTool } from '../support/tool-calls.ts';

const connect = async (transport: (typeof TRANSPORTS)[number], plan: string) => {
  const client = await openClient({ transport, token: mintToken({ plan }).token });
  await client.welcome();
  return client;
};

describe.each(TRANSPORTS)('over %s', (transport) => {
  it('B93 the analyzers return the caller’s own costs and durations only', async () => {
    const other = await connect(transport, 'enterprise');
    await callTool(other, 'analyze_workload');
    const client = await connect(transport, 'enterprise');
    for (let i = 0; i < 3; i++) await callTool(client, 'create_thread');
    await callTool(client, 'analyze_workload');
    const costs = await callTool(client, 'cost_analyzer');
    expect(costs.fields.result).toMatchObject({
      units: 8,
      calls: 4,
      failed_calls: 0,
      by_tool: [
        { tool: 'analyze_workload', units: 5, share: 0.625, charged_calls: 1, units_per_call: 5 },
        { tool: 'create_thread', units: 3, share: 0.375, charged_calls: 3, units_per_call: 1 },
      ],
      projected_month_units: 8 * 730,
    });
    const latencies = await callTool(client, 'latency_analyzer', { tool: 'create_thread' });
    expect(latencies.fields.result).toMatchObject({
      calls: 3,
      change: 'too_few_calls',
      p50_ms: expect.any(Number),
      p99_ms: expect.any(Number),
      by_tool: [expect.objectContaining({ tool: 'create_thread', calls: 3 })],
    });
  });

  it('get_metrics and system_health tell of the live cluster, in numbers', async () => {
    const client = await connect(transport, 'pro');
    const { fields } = await callTool(client, 'get_metrics');
    expect(fields.result).toMatchObject({
      nodes: [1, 2, 3].map((node) => ({ node, connections: expect.any(Number) })),
      connections: expect.any(Number),
      runs_under_way: expect.any(Number),
      tool_calls_under_way: expect.any(Number),
      ledger: { records_waiting: expect.any(Number), lag_ms: expect.any(Number) },
      queue: { waiting: expect.any(Number), active: expect.any(Number), failed: expect.any(Number) },
    });
    expect((fields.result as { tool_calls_under_way: number }).tool_calls_under_way).toBeGreaterThanOrEqual(1);
    expect((await callTool(client, 'system_health')).fields).toMatchObject({
      success: true,
      result: { status: expect.any(String) },
    });
  });

  it('B93 B94 usage_summary tells what was used, what is left and when it comes back', async () => {
    const client = await connect(transport, 'pro');
    const summary = async () => {
      const from = client.mark();
      client.send('usage_summary', { request_id: 'r' });
      return (await client.waitFor('usage_summary', { from })).fields;
    };
    const before = await summary();
    expect(before).toMatchObject({
      plan: 'pro',
      request_id: 'r',
      under_way: { calls: 0, limit: 10 },
      today: { calls: 0, units: 0 },
    });
    await callTool(client, 'analyze_workload');
    await callTool(client, 'create_thread');
    const after = await summary();
    expect(after).toMatchObject({ today: { calls: 2, units: 6 }, this_month: { calls: 2, units: 6 } });
    const tools = after.tools as { tool: string; limits: object[] }[];
    expect(tools.find(({ tool }) => tool === 'analyze_workload')?.limits).toEqual([
      {
        name: 'analytics_per_hour',
        window: 'hour',
        limit: 200,
        used: 1,
        remaining: 199,
        resets_at: expect.any(String),
      },
      {
        name: 'analytics_per_day',
        window: 'day',
        limit: 2_000,
        used: 1,
        remaining: 1_999,
        resets_at: expect.any(String),
      },
      {
        name: 'analyze_workload_per_day',
        window: 'day',
        limit: 500,
        used: 1,
        remaining: 499,
        resets_at: expect.any(String),
      },
    ]);
    expect(tools.find(({ tool }) => tool === 'system_health')?.limits).toContainEqual({
      name: 'monitoring_per_hour',
      window: 'hour',
      limit: 200,
      used: 0,
      remaining: 200,
      resets_at: null,
    });
  });
});
