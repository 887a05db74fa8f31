import { describe, expect, it } from '@jest/globals';
import { runToEnd, type SeenRun } from '../support/agent-runs.ts';
import { openClient, type TestClient, TRANSPORTS } from '../support/clients.ts';
import { nodeUrl } from '../support/nodes.ts';
import { isTerminal, seqs, upTo } from '../support/runs.ts';
import { Stopwatch } from '../support/stopwatch.ts';
import { mintToken, type PlanName } from '../support/tokens.ts';

/** The fields of each event beside the common ones: docs/protocol.md. */
const OWN_FIELDS: Readonly<Record<string, readonly string[]>> = {
  agent_started: ['message', 'status'],
  agent_thinking: ['thought', 'step'],
  tool_executing: ['tool_name', 'tool_call_id', 'arguments', 'status'],
  tool_completed: ['tool_name', 'tool_call_id', 'success', 'result', 'duration_ms', 'usage_record_id', 'status'],
  agent_completed: ['final_response', 'summary', 'duration_ms', 'tools_used', 'status'],
};
const COMMON_FIELDS = ['event_id', 'seq', 'run_id', 'thread_id', 'request_id', 'user_id', 'agent_name', 'timestamp'];

const types = ({ events }: SeenRun) => events.map(({ type }) => type);
const of = ({ events }: SeenRun, type: string) => events.filter((event) => event.type === type).map((e) => e.fields);

describe.each(TRANSPORTS)('a run over %s', (transport) => {
  async function connect(plan: PlanName = 'pro'): Promise<{ client: TestClient; userId: string }> {
    const { token, userId } = mintToken({ plan });
    const client = await openClient({ transport, token });
    await client.welcome();
    return { client, userId };
  }

  it('B218 B221 B223 sends the five events in order, started first and one terminal event last', async () => {
    const { client } = await connect();
    const run = await runToEnd(client);
    expect(types(run).join(' ')).toMatch(
      /^agent_started( agent_thinking)+( tool_executing tool_completed( agent_thinking)*)+ agent_completed$/,
    );
    expect(run.events.filter(isTerminal)).toHaveLength(1);
    const executing = of(run, 'tool_executing').map(({ tool_call_id }) => tool_call_id);
    expect(of(run, 'tool_completed').map(({ tool_call_id }) => tool_call_id)).toEqual(executing);
    expect(new Set(executing).size).toBe(executing.length);
    expect(of(run, 'agent_thinking').map(({ step }) => step)).toEqual(upTo(of(run, 'agent_thinking').length));
  });

  it('B223 carries the fields of the contract on every event', async () => {
    const { client, userId } = await connect();
    const { thread_id } = await client.welcome();
    const run = await runToEnd(client);
    const { request_id } = run.accepted.fields;
    for (const { type, fields } of run.events) {
      expect([type, Object.keys(fields).toSorted()]).toEqual([
        type,
        [...COMMON_FIELDS, ...(OWN_FIELDS[type] ?? [])].toSorted(),
      ]);
      expect(fields).toMatchObject({
        event_id: expect.stringMatching(/^evt_[\w-]{20}$/),
        run_id: run.runId,
        thread_id,
        request_id,
        user_id: userId,
        agent_name: 'triage_agent',
        timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      });
    }
    expect(new Set(run.events.map(({ fields }) => fields.event_id)).size).toBe(run.events.length);
    const times = run.events.map(({ fields }) => String(fields.timestamp));
    expect(times).toEqual(times.toSorted());
    expect(of(run, 'agent_started')).toMatchObject([{ message: 'How is my workload doing?', status: 'started' }]);
    expect(of(run, 'tool_executing')).toMatchObject([
      { tool_name: 'analyze_workload', arguments: { hours: 24 }, status: 'executing' },
    ]);
    expect(of(run, 'tool_completed')).toMatchObject([
      {
        tool_name: 'analyze_workload',
        success: true,
        result: { calls: 0, period_hours: 24 },
        duration_ms: expect.any(Number),
        usage_record_id: expect.stringMatching(/^usage_[\w-]{20}$/),
        status: 'completed',
      },
    ]);
    expect(of(run, 'agent_completed')).toMatchObject([
      { duration_ms: expect.any(Number), tools_used: ['analyze_workload'], status: 'completed' },
    ]);
  });

  it('B221 begins in under a second and is over long before 45', async () => {
    const { client } = await connect();
    const watch = await Stopwatch.start();
    const { events, sentAt } = await runToEnd(client);
    const [first, last] = [events[0], events.at(-1)];
    expect((first?.at ?? Number.NaN) - sentAt).toBeLessThan(watch.allow(1_000));
    expect((last?.at ?? Number.NaN) - sentAt).toBeLessThan(watch.allow(5_000));
  });

  it('is accepted before its first event, every time', async () => {
    const { client } = await connect('enterprise');
    const runs = [];
    for (let i = 0; i < 10; i++) runs.push(await runToEnd(client));
    for (const { accepted, events } of runs) {
      const [first] = events;
      expect(first?.type).toBe('agent_started');
      expect(client.events.indexOf(accepted)).toBeLessThan(client.events.indexOf(first ?? accepted));
    }
  });

  it('B223 numbers its events from 1 without holes, on from one run to the next', async () => {
    const { client } = await connect();
    await runToEnd(client);
    await Promise.all([runToEnd(client), runToEnd(client, { message: 'Is the system healthy?' })]);
    expect(seqs(client.events)).toEqual(upTo(seqs(client.events).length));
  });

  it('B239 is seen by every connection of the user, on every node, and by no other user', async () => {
    const { token } = mintToken();
    const clients = await Promise.all([0, 1, 2].map((node) => openClient({ transport, url: nodeUrl(node), token })));
    await Promise.all(clients.map((client) => client.welcome()));
    const stranger = await openClient({ transport, token: mintToken().token });
    const [requesting, ...watching] = clients as [TestClient, TestClient, TestClient];
    const { runId, events } = await runToEnd(requesting);
    for (const client of watching) {
      await client.waitFor((event) => isTerminal(event) && event.fields.run_id === runId);
      const seen = client.events
        .filter(({ fields }) => fields.run_id === runId)
        .map(({ type, fields }) => [type, fields]);
      expect(seen).toEqual(events.map(({ type, fields }) => [type, fields]));
    }
    stranger.send('ping');
    await stranger.waitFor('pong');
    expect(stranger.events.map(({ type }) => type)).toEqual(['connection_established', 'pong']);
  });
});

describe('the answer of a run', () => {
  it.each([
    ['How is my workload doing?', ['analyze_workload']],
    ['Please analyse the market for me', ['analyze_workload']],
    ['Is the system healthy?', ['system_health']],
    ['Start a thread called "Plan"', ['create_thread', 'get_thread_history']],
    ['What did we discuss earlier?', ['get_thread_history']],
    ['What can you do?', ['list_agents']],
    ['What is the status of my runs?', ['get_agent_status']],
    ['hello', ['analyze_workload', 'get_agent_status']],
  ])('B218 to "%s" comes from the tools that fit and has at least 50 characters', async (message, tools) => {
    const client = await openClient({ token: mintToken({ plan: 'pro' }).token });
    const run = await runToEnd(client, { message });
    const [completed] = of(run, 'agent_completed');
    expect(completed?.tools_used).toEqual(tools);
    const response = String(completed?.final_response);
    expect(`${response} (${response.length})`).toMatch(/^.{50,} \(\d+\)$/s);
    expect(response.startsWith(String(completed?.summary))).toBe(true);
  });

  it('B218 tells what this user has used, in figures that are true', async () => {
    const client = await openClient({ token: mintToken({ plan: 'pro' }).token });
    await runToEnd(client, { message: 'Is the system healthy?' });
    await runToEnd(client, { message: 'Which agents are there?' });
    const run = await runToEnd(client, { message: 'What is my usage?' });
    const [completed] = of(run, 'agent_completed');
    expect(completed?.final_response).toContain('you made 2 tool calls for 2 units, with 0 failures (0 %)');
    expect(completed?.final_response).toContain('system_health costs the most: 1 call, 2 units (100 % of your units)');
    expect(of(run, 'tool_completed')[0]?.result).toMatchObject({ calls: 2, units: 2, errors: 0 });
  });
});
