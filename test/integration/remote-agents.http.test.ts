import { createHmac } from 'node:crypto';
import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { AgentServer } from '../support/agent-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { AGENT_SECRET, RemoteRuns } from '../support/remote-runs.ts';
import { until } from '../support/until.ts';

let server: AgentServer;
let runs: RemoteRuns;

beforeAll(async () => {
  server = await AgentServer.start();
  closeAfter('file', () => server.close());
  runs = await RemoteRuns.start();
});

beforeEach(() => {
  server.requests.length = 0;
});

const row = (more: object = {}) => ({
  kind: 'http',
  url: server.url,
  secret: '$' + '{AGENT_SECRET}',
  headers: { authorization: 'Bearer $' + '{AGENT_KEY}' },
  ...more,
});
const answer = (...lines: object[]) => {
  server.serve = (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    response.end(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  };
};

describe('an agent of kind http', () => {
  it('receives the task, signed, with its credential, the thread and the deadline', async () => {
    answer({ type: 'done', final_response: 'One.' });
    const { userId } = await runs.run(row());
    await runs.run(row(), {}, { userId, message: 'And now?' });
    const request = server.requests[1];
    if (!request) throw new Error('there was no second request');
    const { text, body, headers } = request;
    expect(body).toMatchObject({
      version: 1,
      agent: 'remote',
      user: { id: userId, plan: 'pro' },
      message: 'And now?',
      history: [
        { role: 'user', text: 'Count.' },
        { role: 'assistant', text: 'One.' },
      ],
      repeated: false,
      tools: null,
    });
    expect(Date.parse(String(body.deadline)) - Date.now()).toBeGreaterThan(20_000);
    expect(headers.authorization).toBe('Bearer key-1');
    const [, time = '', signature] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(headers['tollgate-signature'])) ?? [];
    expect(signature).toBe(createHmac('sha256', AGENT_SECRET).update(`${time}.${text}`).digest('hex'));
    expect(Math.abs(Number(time) - Date.now() / 1_000)).toBeLessThan(30);
  });

  it('becomes events of the run: reasoning, text, its own calls, state, and the answer', async () => {
    answer(
      { type: 'think', text: 'I look.' },
      { type: 'call', id: 'c1', tool: 'search', arguments: { q: 'x' } },
      { type: 'result', id: 'c1', result: { hits: 2 } },
      { type: 'state', state: { step: 1 } },
      { type: 'text', delta: 'Two ' },
      { type: 'text', delta: 'hits.' },
      { type: 'done', usage: { input_tokens: 1_000, output_tokens: 500 } },
    );
    const { end, events, userId } = await runs.run(row({ units: 3 }));
    expect(end).toBe('completed');
    expect(events.map(({ type }) => type)).toEqual([
      'agent_started',
      'agent_reasoning',
      'tool_executing',
      'tool_completed',
      'agent_state',
      'agent_thinking',
      'agent_completed',
    ]);
    expect(events[2]).toMatchObject({ tool_name: 'search', tool_call_id: 'c1', arguments: { q: 'x' }, remote: true });
    expect(events[3]).toMatchObject({ tool_call_id: 'c1', success: true, result: { hits: 2 }, remote: true });
    expect(events[4]).toMatchObject({ snapshot: { step: 1 } });
    expect(events[5]).toMatchObject({ thought: 'Two hits.', step: 1 });
    const [record] = await runs.records({ userId });
    expect(record).toMatchObject({
      tool: 'agent:remote',
      status: 'success',
      units: 3,
      units_by_kind: { input_tokens: 1_000, output_tokens: 500 },
      reported: true,
    });
    expect(events[6]).toMatchObject({ final_response: 'Two hits.', usage_record_id: record?.id });
  });

  it('delivers text at once although nothing follows, and ends its request when the run is cancelled', async () => {
    let closed = false;
    server.serve = (_request, response) => {
      response.writeHead(200).write('{"type":"text","delta":"Wait"}\n{"type":"text","delta":" for me."}\n');
      response.on('close', () => {
        closed = true;
      });
    };
    const accepted = await runs.accept(row());
    const executor = runs.executor(row());
    const executed = executor.execute(await runs.claim(row(), accepted));
    await until(async () => {
      const texts = (await runs.events(accepted)).map(({ thought = '' }) => thought);
      return texts.join('') === 'Wait for me.';
    });
    executor.cancel(accepted.runId);
    expect(await executed).toBe('cancelled');
    await until(() => closed);
  });

  it('is not called twice by a worker that takes the run over, and the run ends with AGENT_INTERRUPTED', async () => {
    answer({ type: 'text', delta: 'Half' }, { type: 'done' });
    const accepted = await runs.accept(row());
    const dying = runs.dyingLog(2);
    void runs.executor(row(), { log: dying.log }).execute(await runs.claim(row(), accepted));
    await until(dying.dead);
    expect(await runs.executor(row()).execute(await runs.claim(row(), accepted))).toBe('failed');
    expect(server.requests).toHaveLength(1);
    expect((await runs.events(accepted)).at(-1)).toMatchObject({
      type: 'agent_failed',
      error: { code: 'AGENT_INTERRUPTED', reason: 'not_resumable', retryable: false },
    });
    expect(await runs.records(accepted)).toEqual([]);
  });

  it('is called again after a takeover if it is repeatable, and its text replaces that of the first attempt', async () => {
    const repeatable = row({ repeatable: true });
    answer({ type: 'text', delta: 'First.' }, { type: 'done' });
    const accepted = await runs.accept(repeatable);
    const dying = runs.dyingLog(2);
    void runs.executor(repeatable, { log: dying.log }).execute(await runs.claim(repeatable, accepted));
    await until(dying.dead);
    answer({ type: 'text', delta: 'Second.' }, { type: 'done' });
    expect(await runs.executor(repeatable).execute(await runs.claim(repeatable, accepted))).toBe('completed');
    expect(server.requests.map(({ body }) => body.repeated)).toEqual([false, true]);
    const thoughts = (await runs.events(accepted)).filter(({ type }) => type === 'agent_thinking');
    expect(thoughts).toMatchObject([
      { step: 1, thought: 'First.' },
      { step: 2, thought: 'Second.', replaces_step: 1 },
    ]);
    expect(await runs.records(accepted)).toHaveLength(1);
  });

  it('costs one command per event and one for the history, and none per line', async () => {
    answer(...Array.from({ length: 200 }, () => ({ type: 'text', delta: 'x' })), { type: 'done' });
    const accepted = await runs.accept(row());
    const claimed = await runs.claim(row(), accepted);
    const commands = runs.countCommands();
    expect(await runs.executor(row()).execute(claimed)).toBe('completed');
    const { length } = await runs.events(accepted);
    // Reading the events costs two commands.
    expect(commands.count - 2).toBe(length + 1);
    expect(length).toBeLessThanOrEqual(5);
  });

  it('is refused to a session that could not be verified', async () => {
    const { events } = await runs.run(row(), {}, { degraded: true });
    expect(events.at(-1)).toMatchObject({ error: { code: 'AUTH_SERVICE_UNAVAILABLE' } });
    expect(server.requests).toHaveLength(0);
  });
});
