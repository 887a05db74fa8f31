import { afterEach, describe, expect, it } from '@jest/globals';
import { EventsLostError, RunFailedError } from '../../packages/client/src/errors.ts';
import type { Run } from '../../packages/client/src/run.ts';
import { Tollgate, type TollgateOptions } from '../../packages/client/src/tollgate.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { ScriptedTransport } from '../support/scripted-transport.ts';
import { until } from '../support/until.ts';

const clients: Tollgate[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

async function connected(options: Partial<TollgateOptions> = {}) {
  const transport = new ScriptedTransport();
  const clock = new ManualClock();
  const getToken = () => 'token';
  const url = 'http://gateway.test';
  const client = new Tollgate({ url, transport: transport.open, getToken, clock, random: () => 1, ...options });
  clients.push(client);
  client.connect();
  await until(() => transport.connections.length === 1);
  transport.current.welcome();
  let seq = 0;
  const emit = (run: Run, type: string, fields = {}) => {
    seq += 1;
    transport.current.message(type, { seq, request_id: run.requestId, run_id: 'run_1', thread_id: 't1', ...fields });
  };
  const accept = (run: Run) => {
    transport.current.message('agent_accepted', { request_id: run.requestId, run_id: 'run_1', thread_id: 't1' });
  };
  return { client, transport, clock, emit, accept };
}

const COMPLETED = { final_response: 'Done.', duration_ms: 5, tools_used: ['search'] };

describe('a run of a client', () => {
  it('yields its own events in order and resolves with the answer', async () => {
    const { client, transport, emit, accept } = await connected();
    const run = client.run('Hello', { agent: 'triage', thread: 't1' });
    const sent = transport.current.last('agent_request');
    expect(sent).toEqual({ message: 'Hello', agent: 'triage', thread_id: 't1', request_id: run.requestId });
    accept(run);
    emit(run, 'agent_started');
    transport.current.message('agent_thinking', { seq: 2, request_id: 'of another tab' });
    for (const type of ['agent_thinking', 'agent_completed']) {
      const seq = type === 'agent_thinking' ? 3 : 4;
      transport.current.message(type, {
        seq,
        request_id: run.requestId,
        run_id: 'run_1',
        thread_id: 't1',
        ...COMPLETED,
      });
    }
    const types: string[] = [];
    for await (const { type } of run) types.push(type);
    expect(types).toEqual(['agent_started', 'agent_thinking', 'agent_completed']);
    expect(await run.result()).toEqual({
      runId: 'run_1',
      threadId: 't1',
      text: 'Done.',
      durationMs: 5,
      toolsUsed: ['search'],
    });
  });

  it('is answered what it asks, and an answer to a request that has ended rejects', async () => {
    const { client, transport, emit, accept } = await connected();
    const run = client.run('Hello');
    accept(run);
    const ids = { run_id: 'run_1', input_id: 'input_1' };
    emit(run, 'input_requested', { ...ids, kind: 'choice', message: 'Which one?', choices: ['a', 'b'] });
    const answered: { repeated: boolean }[] = [];
    for await (const event of run) {
      if (event.type !== 'input_requested') continue;
      const answering = client.respond(event, { action: 'accept', content: { choice: event.choices?.[1] } });
      const { request_id, ...sent } = transport.current.last('input_response') ?? {};
      expect(sent).toEqual({ ...ids, action: 'accept', content: { choice: 'b' } });
      transport.current.message('input_accepted', { ...ids, action: 'accept', repeated: false, request_id });
      answered.push(await answering);
      emit(run, 'agent_completed', COMPLETED);
    }
    expect(answered).toEqual([{ repeated: false }]);
    const late = client.respond(ids, { action: 'decline' });
    const { request_id } = transport.current.last('input_response') ?? {};
    transport.current.message('error', { code: 'INPUT_ALREADY_ANSWERED', message: '', retryable: false, request_id });
    await expect(late).rejects.toMatchObject({ code: 'INPUT_ALREADY_ANSWERED' });
  });

  it('is requested again under the same id after a reconnect, until it is accepted', async () => {
    const { client, transport, clock, accept } = await connected();
    const run = client.run('Hello');
    transport.current.close();
    clock.advance(500);
    await until(() => transport.connections.length === 2);
    transport.current.welcome();
    expect(transport.current.last('agent_request')?.request_id).toBe(run.requestId);
    accept(run);
    expect(await run.accepted).toEqual({ runId: 'run_1', threadId: 't1' });
    transport.current.close();
    clock.advance(500);
    await until(() => transport.connections.length === 3);
    transport.current.welcome();
    expect(transport.current.sent).toEqual([]);
  });

  it('rejects its result with the error of agent_failed, and still yields that event', async () => {
    const { client, emit, accept } = await connected();
    const run = client.run('Hello');
    accept(run);
    const error = { code: 'RUN_TIMEOUT', message: 'Too slow.', retryable: true };
    emit(run, 'agent_failed', { error, duration_ms: 1 });
    const types: string[] = [];
    for await (const { type } of run) types.push(type);
    expect(types).toEqual(['agent_failed']);
    const failure = await run.result().catch((thrown: unknown) => thrown);
    expect(failure).toBeInstanceOf(RunFailedError);
    expect(failure).toMatchObject({ code: 'RUN_TIMEOUT', retryable: true, message: 'Too slow.' });
  });

  it('waits for a short retry delay of the gateway, and rejects with a long one', async () => {
    const { client, transport, clock, accept } = await connected();
    const run = client.run('Hello');
    const limited = { code: 'RATE_LIMITED', message: 'Slow down.', retryable: true, request_id: run.requestId };
    transport.current.message('error', { ...limited, retry_after_ms: 2_000 });
    clock.advance(2_000);
    expect(transport.current.sent.filter(({ type }) => type === 'agent_request')).toHaveLength(2);
    accept(run);
    await run.accepted;

    const second = client.run('Again');
    transport.current.message('error', { ...limited, request_id: second.requestId, retry_after_ms: 60_000 });
    await expect(second.result()).rejects.toMatchObject({
      code: 'RATE_LIMITED',
      retryAfterMs: 60_000,
      retryable: true,
    });
  });

  it('is cancelled by its signal', async () => {
    const { client, transport, emit, accept } = await connected();
    const stop = new AbortController();
    const run = client.run('Hello', { signal: stop.signal });
    accept(run);
    await run.accepted;
    stop.abort();
    await until(() => transport.current.last('agent_cancel'));
    expect(transport.current.last('agent_cancel')?.run_id).toBe('run_1');
    emit(run, 'agent_cancelled', { duration_ms: 1 });
    await expect(run.result()).rejects.toMatchObject({ code: 'RUN_CANCELLED' });
  });

  it('fails with EVENTS_LOST when the log no longer has its events', async () => {
    const { client, transport, accept } = await connected();
    const run = client.run('Hello');
    accept(run);
    await run.accepted;
    transport.current.message('resume_failed', { reason: 'epoch_changed', oldest_seq: 1, epoch: 'e2' });
    await expect(run[Symbol.asyncIterator]().next()).rejects.toBeInstanceOf(EventsLostError);
    await until(() => transport.current.last('run_status'));
    const { request_id, run_id } = transport.current.last('run_status') ?? {};
    transport.current.message('run_status', { request_id, run_id, status: 'unknown', thread_id: null });
    await expect(run.result()).rejects.toBeInstanceOf(EventsLostError);
  });

  it.each([
    ['completed', { final_response: 'Done.', ended_at: '2026-11-30T00:00:00.000Z' }, { text: 'Done.', threadId: 't1' }],
    ['completed', { final_response: null }, { code: 'EVENTS_LOST' }],
    ['failed', {}, { code: 'RUN_FAILED' }],
    ['cancelled', {}, { code: 'RUN_CANCELLED' }],
  ])('whose events are lost ends as the gateway reports: %s %j', async (status, fields, expected) => {
    const { client, transport, accept } = await connected();
    const run = client.run('Hello');
    accept(run);
    await run.accepted;
    transport.current.message('resume_failed', { reason: 'epoch_changed', oldest_seq: 1, epoch: 'e2' });
    await until(() => transport.current.last('run_status'));
    const { request_id, run_id } = transport.current.last('run_status') ?? {};
    expect(run_id).toBe('run_1');
    transport.current.message('run_status', { request_id, run_id, thread_id: 't1', status, ...fields });
    expect(await run.result().catch((error: unknown) => error)).toMatchObject(expected);
  });

  it.each(['running', 'waiting'])(
    'whose events are lost while it is %s resolves with its terminal event',
    async (status) => {
      const { client, transport, emit, accept } = await connected();
      const run = client.run('Hello');
      accept(run);
      await run.accepted;
      transport.current.message('resume_failed', { reason: 'epoch_changed', oldest_seq: 1, epoch: 'e2' });
      await until(() => transport.current.last('run_status'));
      const { request_id, run_id } = transport.current.last('run_status') ?? {};
      transport.current.message('run_status', { request_id, run_id, thread_id: 't1', status });
      emit(run, 'agent_completed', COMPLETED);
      expect((await run.result()).text).toBe('Done.');
      await expect(run[Symbol.asyncIterator]().next()).rejects.toBeInstanceOf(EventsLostError);
    },
  );

  it('bounds the events that wait for a reader, and keeps the result', async () => {
    const { client, emit, accept } = await connected({ maxQueuedEvents: 3 });
    const run = client.run('Hello');
    accept(run);
    for (let index = 0; index < 5; index++) emit(run, 'agent_thinking');
    emit(run, 'agent_completed', COMPLETED);
    expect((await run.result()).text).toBe('Done.');
    await expect(run[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'RUN_BUFFER_FULL' });
  });

  it('rejects what is unanswered when the client stops', async () => {
    const { client } = await connected();
    const run = client.run('Hello');
    const call = client.callTool('search');
    client.close();
    await expect(run.result()).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(call).rejects.toMatchObject({ code: 'CLOSED' });
  });
});

describe('a tool call of a client', () => {
  it('is repeated under the same idempotency key', async () => {
    const { client, transport, clock } = await connected();
    const call = client.callTool('search', { query: 'x' });
    const first = transport.current.last('tool_call');
    expect(first?.idempotency_key).toEqual(expect.any(String));
    transport.current.close();
    clock.advance(500);
    await until(() => transport.connections.length === 2);
    transport.current.welcome();
    expect(transport.current.last('tool_call')).toEqual(first);
    transport.current.message('tool_result', { request_id: first?.request_id, success: true, result: 42 });
    expect(await call).toMatchObject({ success: true, result: 42 });
  });

  it('says why there is no connection when it times out', async () => {
    const { client, clock, transport } = await connected({ requestTimeoutMs: 1_000 });
    transport.current.close({ detail: 'HTTP 403' });
    const call = client.callTool('search');
    clock.advance(1_000);
    const message = expect.stringMatching(/^No answer to tool_call: not connected \(DISCONNECTED: .*HTTP 403.*\)\.$/);
    await expect(call).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT', message, cause: { name: expect.any(String) } });
  });

  it('times out, and rejects at once when its signal is aborted', async () => {
    const { client, clock } = await connected({ requestTimeoutMs: 1_000 });
    const call = client.callTool('search');
    clock.advance(1_000);
    await expect(call).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT', message: 'No answer to tool_call.' });
    const stop = new AbortController();
    const aborted = client.callTool('search', {}, { signal: stop.signal });
    stop.abort(new Error('left the page'));
    await expect(aborted).rejects.toThrow('left the page');
  });

  it('reports messages that answer nothing as notices, and errors without a request as errors', async () => {
    const { client, transport } = await connected();
    const notices: unknown[] = [];
    const errors: string[] = [];
    client.on('notice', (notice) => notices.push(notice));
    client.on('error', ({ code }) => errors.push(code));
    transport.current.message('order.shipped', { order: 7 });
    transport.current.message('error', { code: 'FORMAT_ERROR', message: 'x' });
    expect(notices).toEqual([{ type: 'order.shipped', fields: { order: 7 } }]);
    expect(errors).toEqual(['FORMAT_ERROR']);
  });
});
