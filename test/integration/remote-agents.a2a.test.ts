import { TaskState } from '@a2a-js/sdk';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { A2aServer } from '../support/a2a-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { RemoteRuns } from '../support/remote-runs.ts';
import { until } from '../support/until.ts';

let agent: A2aServer;
let runs: RemoteRuns;

beforeAll(async () => {
  agent = await A2aServer.start();
  closeAfter('file', () => agent.server.close());
  runs = await RemoteRuns.start();
});

const row = (more: object = {}) => ({ kind: 'a2a', url: `${agent.server.origin}/rpc`, ...more });
const TEXT = ['A', 'B', 'C', 'D'];
const textOf = (events: readonly Record<string, unknown>[]) => events.map(({ thought = '' }) => thought).join('');

describe('an agent of kind a2a, made of the server of the SDK', () => {
  it('gets the task over the interface of its card, and streams its artifact as the answer', async () => {
    agent.reset({ text: TEXT });
    const { end, events } = await runs.run(row({ metadata: { tenant: 'a' } }));
    expect(end).toBe('completed');
    expect(textOf(events)).toBe('ABCD');
    expect(events.at(-1)).toMatchObject({ final_response: 'ABCD' });
    const sent = agent.server.requests.find(({ body }) => body.method === 'SendStreamingMessage');
    expect(sent?.headers['a2a-version']).toBe('1.0');
    expect(sent?.body.params).toMatchObject({
      message: { role: 'ROLE_USER', contextId: 'thread_1', parts: [{ text: 'Count.' }] },
      metadata: { tenant: 'a' },
    });
  });

  it.each([2, 3, 4, 5])('reads the task and goes on after its stream ended at event %i', async (cutAfter) => {
    agent.reset({ text: TEXT, cutAfter });
    const { end, events } = await runs.run(row());
    expect(end).toBe('completed');
    expect(textOf(events)).toBe('ABCD');
    expect(agent.methods.filter((method) => method === 'SendStreamingMessage')).toHaveLength(1);
    expect(agent.methods).toContain('GetTask');
  });

  it.each([1, 2])(
    'is continued by the worker that takes over after event %i, and is sent the task once',
    async (died) => {
      agent.reset({ text: TEXT, holdAt: 2 });
      const accepted = await runs.accept(row());
      const dying = runs.dyingLog(died);
      void runs.executor(row(), { log: dying.log }).execute(await runs.claim(row(), accepted));
      await until(dying.dead);
      const executed = runs.executor(row()).execute(await runs.claim(row(), accepted));
      await until(() => agent.methods.includes('SubscribeToTask'));
      agent.release();
      expect(await executed).toBe('completed');
      const events = await runs.events(accepted);
      expect(textOf(events)).toBe('ABCD');
      expect(events.at(-1)).toMatchObject({ type: 'agent_completed', final_response: 'ABCD' });
      expect(agent.methods.filter((method) => method.startsWith('Send'))).toHaveLength(1);
      const [get, subscribe] = ['GetTask', 'SubscribeToTask'].map((method) => agent.methods.indexOf(method));
      expect(get).toBeLessThan(subscribe ?? -1);
    },
  );

  it('is polled if its card offers no streams', async () => {
    agent.reset({ text: TEXT, streaming: false });
    const { end, events } = await runs.run(row());
    expect(end).toBe('completed');
    expect(textOf(events)).toBe('ABCD');
    expect(agent.methods).toEqual(expect.arrayContaining(['SendMessage']));
    expect(agent.methods).not.toContain('SubscribeToTask');
  });

  it.each([
    [TaskState.TASK_STATE_FAILED, 'AGENT_FAILED', 'error'],
    [TaskState.TASK_STATE_REJECTED, 'AGENT_FAILED', 'error'],
    [TaskState.TASK_STATE_CANCELED, 'AGENT_FAILED', 'cancelled'],
  ])('ends the run with a clear error in state %s', async (state, code, reason) => {
    agent.reset({ text: ['Half.'], state });
    const { end, events } = await runs.run(row());
    expect(end).toBe('failed');
    expect(events.at(-1)).toMatchObject({ error: { code, reason } });
  });

  it('gets CancelTask when the run is cancelled', async () => {
    agent.reset({ text: TEXT, holdAt: 1 });
    const accepted = await runs.accept(row());
    const executor = runs.executor(row());
    const executed = executor.execute(await runs.claim(row(), accepted));
    await until(async () => textOf(await runs.events(accepted)) === 'A');
    executor.cancel(accepted.runId);
    expect(await executed).toBe('cancelled');
    await until(() => agent.cancelled.length === 1);
    agent.release();
  });

  it('never gets a request at another origin, even if its card names one', async () => {
    agent.reset({ text: TEXT });
    const { serve } = agent.server;
    agent.server.serve = (_request, response) => {
      const supportedInterfaces = [
        { url: 'http://169.254.169.254/rpc', protocolBinding: 'JSONRPC', protocolVersion: '1.0' },
      ];
      response.writeHead(200).end(JSON.stringify({ supportedInterfaces }));
    };
    const { events } = await runs.run(row());
    agent.server.serve = serve;
    expect(events.at(-1)).toMatchObject({ error: { code: 'AGENT_FAILED', reason: 'invalid' } });
    expect(agent.methods).toEqual([]);
  });
});
