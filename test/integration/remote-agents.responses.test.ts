import { beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI from 'openai';
import { closeAfter } from '../support/open-resources.ts';
import { RemoteRuns } from '../support/remote-runs.ts';
import { ResponsesServer } from '../support/responses-server.ts';
import { until } from '../support/until.ts';

let server: ResponsesServer;
let runs: RemoteRuns;

beforeAll(async () => {
  server = await ResponsesServer.start();
  closeAfter('file', () => server.server.close());
  runs = await RemoteRuns.start();
});

const row = (more: object = {}) => ({ kind: 'responses', url: server.url, model: 'agent-1', ...more });
const TEXT = ['A', 'B', 'C', 'D'];
/** agent_started, the parts of the text, agent_completed: the timer decides how many parts there are. */
const textOf = (events: readonly Record<string, unknown>[]) => events.map(({ thought = '' }) => thought).join('');

describe('an agent of kind responses', () => {
  it('receives the thread, and its answer, tokens and tools are those of the run', async () => {
    server.reset({ text: TEXT });
    const toolAccess = { url: 'https://gateway.example/mcp', token: 'tok', expiresAt: Date.now(), names: ['count'] };
    const { end, events, userId } = await runs.run(row({ tools: ['count'] }), { toolAccess });
    expect(end).toBe('completed');
    expect(server.server.requests[0]?.body).toMatchObject({
      model: 'agent-1',
      input: [{ role: 'user', content: 'Count.' }],
      stream: true,
      background: true,
      store: true,
      tools: [{ type: 'mcp', server_label: 'tollgate', authorization: 'tok', allowed_tools: ['count'] }],
    });
    expect(textOf(events)).toBe('ABCD');
    expect(events.at(-1)).toMatchObject({ final_response: 'ABCD' });
    expect(await runs.records({ userId })).toMatchObject([
      { units_by_kind: { input_tokens: 7, output_tokens: 3 }, reported: true },
    ]);
  });

  it.each(
    Array.from({ length: 10 }, (_, at) => at + 1).flatMap((at) => [['end', at] as const, ['reset', at] as const]),
  )('continues the stream after a %s of its connection after event %i, and pays once', async (cut, cutAfter) => {
    server.reset({ text: TEXT, cut, cutAfter });
    const { end, events } = await runs.run(row());
    expect(end).toBe('completed');
    expect(textOf(events)).toBe('ABCD');
    expect(server.created).toBe(1);
  });

  it.each([1, 2, 3])('is continued by the worker that takes over after event %i, and pays once', async (died) => {
    server.reset({ text: TEXT });
    const accepted = await runs.accept(row());
    const dying = runs.dyingLog(died);
    void runs.executor(row(), { log: dying.log }).execute(await runs.claim(row(), accepted));
    await until(dying.dead);
    expect(await runs.executor(row()).execute(await runs.claim(row(), accepted))).toBe('completed');
    const events = await runs.events(accepted);
    expect(textOf(events)).toBe('ABCD');
    expect(events.filter((event) => 'replaces_step' in event)).toEqual([]);
    expect(events.at(-1)).toMatchObject({ type: 'agent_completed', final_response: 'ABCD' });
    expect(server.created).toBe(1);
    expect(await runs.records(accepted)).toHaveLength(1);
  });

  it('costs one command more than its events and the history, for the position of the response', async () => {
    server.reset({ text: TEXT });
    const accepted = await runs.accept(row());
    const claimed = await runs.claim(row(), accepted);
    const commands = runs.countCommands();
    expect(await runs.executor(row()).execute(claimed)).toBe('completed');
    const { length } = await runs.events(accepted);
    // Reading the events costs two commands.
    expect(commands.count - 2).toBe(length + 2);
  });

  it('ends the run with AGENT_INTERRUPTED when the server has lost the response, unless it is repeatable', async () => {
    for (const repeatable of [false, true]) {
      server.reset({ text: TEXT });
      const chosen = row({ repeatable });
      const accepted = await runs.accept(chosen);
      const dying = runs.dyingLog(2);
      void runs.executor(chosen, { log: dying.log }).execute(await runs.claim(chosen, accepted));
      await until(dying.dead);
      server.forgets = true;
      const end = await runs.executor(chosen).execute(await runs.claim(chosen, accepted));
      const last = (await runs.events(accepted)).at(-1);
      expect(end).toBe(repeatable ? 'completed' : 'failed');
      expect(last).toMatchObject(repeatable ? { final_response: 'ABCD' } : { error: { code: 'AGENT_INTERRUPTED' } });
    }
  });

  it('is cancelled at its server when the run is cancelled', async () => {
    server.reset({ text: TEXT });
    server.server.serve = ((serve) => (request, response, at) => {
      if (request.method === 'POST' && request.path === '/v1/responses') {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write(`data: ${JSON.stringify(server.events[0])}\n\n`);
      } else return serve(request, response, at);
    })(server.server.serve);
    const accepted = await runs.accept(row());
    const executor = runs.executor(row());
    const executed = executor.execute(await runs.claim(row(), accepted));
    await until(() => server.created === 1);
    await until(async () => (await runs.claimedSteps(accepted)) > 0);
    executor.cancel(accepted.runId);
    expect(await executed).toBe('cancelled');
    await until(() => server.server.requests.some(({ path }) => path === '/v1/responses/resp_1/cancel'));
  });
});

describe('the server of these tests', () => {
  it('speaks the protocol of the openai client: a stream, and the same stream after a sequence number', async () => {
    const fresh = await ResponsesServer.start();
    closeAfter('test', () => fresh.server.close());
    fresh.reset({ text: TEXT });
    const client = new OpenAI({ apiKey: 'k', baseURL: fresh.url });
    const whole: string[] = [];
    const stream = await client.responses.create({ model: 'm', input: 'x', stream: true, background: true });
    for await (const event of stream) if (event.type === 'response.output_text.delta') whole.push(event.delta);
    expect(whole).toEqual(TEXT);
    const rest: string[] = [];
    for await (const event of await client.responses.retrieve('resp_1', { stream: true, starting_after: 5 })) {
      if (event.type === 'response.output_text.delta') rest.push(event.delta);
    }
    expect(rest).toEqual(['C', 'D']);
  });
});
