import { beforeAll, describe, expect, it } from '@jest/globals';
import { io } from 'socket.io-client';
import { Tollgate } from '../../packages/client/src/tollgate.ts';
import { socketIoTransport } from '../../packages/client/src/transports/socketio.ts';
import { openClient } from '../support/clients.ts';
import { type EventStreamClient, openStream, type StreamOptions } from '../support/event-stream.ts';
import { total } from '../support/metrics.ts';
import { nodeUrl } from '../support/nodes.ts';
import { closeAfter } from '../support/open-resources.ts';
import { askUser, FULL_RUN, ScriptedWorker } from '../support/scripted-worker.ts';
import { type StackProcesses, useStack } from '../support/stack.ts';
import { type MintedToken, mintToken } from '../support/tokens.ts';
import { until } from '../support/until.ts';

/** Two gateways without a worker: the test appends the events of runs itself. */
const own = useStack({ gateways: 2, workers: 0 });
let worker: ScriptedWorker;

beforeAll(async () => {
  worker = await ScriptedWorker.start(own().addresses);
});

const url = (path: string, node = 0) => nodeUrl(node, own().addresses) + path;
const user = (claims = {}) => mintToken(claims, { stack: own().addresses });

async function ask(path: string, options: StreamOptions = {}, node = 0): Promise<EventStreamClient> {
  return openStream(url(path, node), options).ended();
}

async function startRun({ token, userId }: MintedToken, body: object = {}) {
  const { json, status } = await ask('/v1/runs', { method: 'POST', token, body: { message: 'Hello', ...body } });
  const runId = String(json.run_id);
  return { status, json, runId, log: () => worker.claim(userId, runId) };
}

describe('POST /v1/runs', () => {
  it('accepts a run once per request id, and GET and cancel find it on every node', async () => {
    const me = user();
    const { status, json, runId } = await startRun(me, { request_id: 'req_1', thread_id: 'thread_a' });
    expect([status, json]).toEqual([
      202,
      { run_id: expect.stringMatching(/^run_/), request_id: 'req_1', thread_id: 'thread_a', status: 'queued' },
    ]);
    expect((await startRun(me, { request_id: 'req_1' })).runId).toBe(runId);
    const { token } = me;
    expect((await ask(`/v1/runs/${runId}`, { token }, 1)).json).toEqual(json);
    const cancelled = await ask(`/v1/runs/${runId}/cancel`, { method: 'POST', token }, 1);
    expect([cancelled.status, cancelled.json]).toEqual([202, { run_id: runId, already_ended: false }]);
  });

  it('with wait answers when the run has ended, and otherwise after that time', async () => {
    const me = user();
    const { runId, log } = await startRun(me, { request_id: 'req_1' });
    const options = { method: 'POST', token: me.token, body: { message: 'Hello', request_id: 'req_1' } } as const;
    expect((await ask('/v1/runs?wait=0.1', options)).status).toBe(202);
    const waiting = openStream(url('/v1/runs?wait=20', 1), options);
    const events = await log();
    for (const event of FULL_RUN) await event(events);
    await waiting.ended();
    expect([waiting.status, waiting.json]).toMatchObject([
      200,
      { run_id: runId, status: 'completed', final_response: 'It is twelve – 十二.' },
    ]);
  });

  it.each([
    ['an empty message', { message: '' }, 400, 'FORMAT_ERROR'],
    ['an unknown agent', { message: 'Hello', agent: 'nobody' }, 404, 'AGENT_NOT_FOUND'],
    ['a long message', { message: 'x'.repeat(9_000) }, 413, 'MESSAGE_TOO_LARGE'],
  ])('refuses %s with the error of the table', async (_name, body, status, code) => {
    const answer = await ask('/v1/runs', { method: 'POST', token: user().token, body });
    expect([answer.status, answer.json]).toMatchObject([status, { error: { code } }]);
  });

  it('above the message limit answers 429 with retry_after_ms in the body', async () => {
    const { token } = user({ plan: 'free' });
    const send = () => ask('/v1/runs', { method: 'POST', token, body: { message: 'Hello' } });
    for (let sent = 0; sent < 30; sent++) await ask('/v1/runs/run_none', { token });
    const { status, json } = await send();
    expect([status, json.error]).toMatchObject([429, { code: 'RATE_LIMITED', retry_after_ms: expect.any(Number) }]);
  });
});

describe('POST /v1/runs/{run_id}/inputs/{input_id}', () => {
  const CHOICE = { kind: 'choice', message: 'Which one?', choices: ['a', 'b'] } as const;

  /** A run that waits, which its client learns from the answer to `POST /v1/runs?wait=`. */
  async function waitingRun() {
    const me = user();
    const { runId, log } = await startRun(me, { request_id: 'req_1' });
    const events = await log();
    await events.started();
    await askUser(events, 'input_1', CHOICE);
    const body = { message: 'Hello', request_id: 'req_1' };
    const { status, json } = await ask('/v1/runs?wait=20', { method: 'POST', token: me.token, body });
    expect([status, json]).toMatchObject([202, { status: 'waiting', input_requests: [{ input_id: 'input_1' }] }]);
    const answer = (given: object, { token } = me, input = 'input_1') =>
      ask(`/v1/runs/${runId}/inputs/${input}`, { method: 'POST', token, body: given }, 1);
    return { me, runId, answer, log };
  }

  it('answers an input request once, on every node, and the run continues', async () => {
    const { me, runId, answer, log } = await waitingRun();
    const accept = { action: 'accept', content: { choice: 'b' } };
    const accepted = { run_id: runId, input_id: 'input_1', action: 'accept' };
    const first = await answer(accept);
    expect([first.status, first.json]).toEqual([200, { ...accepted, repeated: false }]);
    expect((await answer(accept)).json).toEqual({ ...accepted, repeated: true });
    const events = await log();
    expect(await events.requestInput('input_1', CHOICE, 1)).toEqual(accept);
    await events.completed({ final_response: 'It is b.', summary: '' });
    expect((await ask(`/v1/runs/${runId}`, { token: me.token })).json).toMatchObject({ final_response: 'It is b.' });
  });

  const TRANSPORTS = {
    websocket: 'websocket',
    sse: 'sse',
    socketio: socketIoTransport(io, { transports: ['websocket'] }),
  } as const;
  it.each(Object.entries(TRANSPORTS))('is the answer of the client package over %s', async (_name, transport) => {
    const me = user();
    const client = new Tollgate({ url: url(''), getToken: () => me.token, transport });
    closeAfter('test', () => client.close());
    const run = client.run('Hello');
    const { runId } = await run.accepted;
    const events = await worker.claim(me.userId, runId);
    await events.started();
    await askUser(events, 'input_1', CHOICE);
    const types: string[] = [];
    for await (const event of run) {
      types.push(event.type);
      if (event.type === 'input_requested') {
        const answer = { action: 'accept', content: { choice: event.choices?.[0] } } as const;
        expect(await client.respond(event, answer)).toEqual({ repeated: false });
        expect(await client.respond(event, answer)).toEqual({ repeated: true });
        await expect(client.respond(event, { action: 'cancel' })).rejects.toMatchObject({
          code: 'INPUT_ALREADY_ANSWERED',
        });
        const log = await worker.claim(me.userId, runId);
        await log.completed({ final_response: 'It is a.', summary: '' });
      }
    }
    expect(types).toEqual(['agent_started', 'input_requested', 'input_received', 'agent_completed']);
  });

  it('refuses an answer that is late, foreign, of another form, or for another request', async () => {
    const { answer } = await waitingRun();
    const [other, accept] = [user(), { action: 'accept', content: { choice: 'b' } }];
    const answers = [
      await answer({ action: 'perhaps' }),
      await answer({ action: 'accept', content: { choice: 'c' } }),
      await answer(accept, other),
      await answer(accept, undefined, 'input_2'),
      await answer(accept),
      await answer({ action: 'decline' }),
    ];
    expect(answers.map(({ status, json }) => [status, (json.error as { code: string } | undefined)?.code])).toEqual([
      [400, 'FORMAT_ERROR'],
      [400, 'FORMAT_ERROR'],
      [404, 'RUN_NOT_FOUND'],
      [404, 'INPUT_NOT_FOUND'],
      [200, undefined],
      [409, 'INPUT_ALREADY_ANSWERED'],
    ]);
  });
});

describe('a stream of events', () => {
  it('needs a credential, an allowed origin, and a run of the user', async () => {
    const { runId } = await startRun(user());
    const path = `/v1/runs/${runId}/events`;
    const { token } = user();
    const answers = [
      await ask(path),
      await ask(path, { token, headers: { origin: 'http://evil.example.test' } }),
      await ask(path, { token }),
      await ask('/v1/events', { token, headers: { 'last-event-id': 'nonsense' } }),
    ];
    expect(answers.map(({ status, json }) => [status, (json.error as { code: string }).code])).toEqual([
      [401, 'NO_TOKEN'],
      [403, 'ORIGIN_NOT_ALLOWED'],
      [404, 'RUN_NOT_FOUND'],
      [400, 'FORMAT_ERROR'],
    ]);
  });

  it('begins with a comment, has no proxy buffering, and ends with the run, wherever it was cut', async () => {
    const me = user();
    const { token } = me;
    const { runId, log } = await startRun(me);
    const path = `/v1/runs/${runId}/events`;
    const whole = openStream(url(path), { token, headers: { origin: 'http://app.example.test' } });
    await whole.opened();
    expect(whole.headers).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      'transfer-encoding': 'chunked',
      'access-control-allow-origin': 'http://app.example.test',
    });
    const events = await log();
    for (const event of FULL_RUN) await event(events);
    await whole.ended();
    expect([whole.end, whole.events.length]).toEqual(['complete', FULL_RUN.length]);
    expect(whole.text).toMatch(/^: tollgate\n\nid: epoch_\w+:\d+\ndata: \{"type":"agent_started","seq":/);
    expect(whole.text).not.toContain('\r');
    for (const [at, { id = '' }] of whole.events.entries()) {
      const rest = await ask(path, { token, headers: { 'last-event-id': id } }, at % 2);
      expect([rest.status, rest.events]).toEqual([at === FULL_RUN.length - 1 ? 204 : 200, whole.events.slice(at + 1)]);
    }
  });

  it('of a user has the events of all runs, and a client that leaves cancels nothing', async () => {
    const me = user();
    const { token } = me;
    const all = openStream(url('/v1/events'), { token });
    await all.waitFor('connection_established');
    const first = await startRun(me);
    const second = await startRun(me);
    const [one, two] = [await first.log(), await second.log()];
    await one.started();
    await two.started();
    await until(() => all.types.filter((type) => type === 'agent_started').length === 2);
    const { id = '' } = all.events.at(-1) ?? {};
    all.destroy();
    await one.thinking('Still here.');
    await two.cancelled();
    const later = openStream(url('/v1/events', 1), { token, headers: { 'last-event-id': id } });
    await later.waitFor('agent_cancelled');
    expect(later.types).toEqual(['connection_established', 'agent_thinking', 'agent_cancelled', 'resumed']);
  });

  it('counts towards the cap: the oldest connection ends with CONNECTION_LIMIT_EXCEEDED and a reset', async () => {
    const { token } = user();
    const streams = [];
    for (let at = 0; at < 4; at++) {
      streams.push(openStream(url('/v1/events', at % 2), { token }));
      await streams.at(-1)?.waitFor('connection_established');
    }
    const [oldest, ...others] = streams;
    await oldest?.ended();
    expect(oldest?.end).toBe('broken');
    expect(oldest?.events.at(-1)?.data).toMatchObject({ type: 'error', code: 'CONNECTION_LIMIT_EXCEEDED' });
    expect(oldest?.text).toContain('retry: 3600000\n');
    expect(others.map(({ end }) => end)).toEqual([undefined, undefined, undefined]);
  });

  it('with a name replaces the earlier one with this name and no other connection, on any node', async () => {
    const { token } = user();
    const socket = await openClient({ token, url: url('') });
    const other = openStream(url('/v1/events?stream=other'), { token });
    const before = openStream(url('/v1/events?stream=mine'), { token });
    await Promise.all([other, before].map((stream) => stream.waitFor('connection_established')));
    const after = openStream(url('/v1/events?stream=mine', 1), { token });
    await after.waitFor('connection_established');
    await before.ended();
    expect([before.end, before.events.at(-1)?.data.code]).toEqual(['broken', 'CONNECTION_LIMIT_EXCEEDED']);
    socket.send('ping');
    await socket.waitFor('pong');
    expect([other.end, after.end]).toEqual([undefined, undefined]);
  });

  it('ends when the session is revoked', async () => {
    const { token, userId } = user();
    const stream = openStream(url('/v1/events'), { token });
    await stream.waitFor('connection_established');
    await block(own(), userId);
    await stream.ended();
    expect(stream.types).toEqual(['connection_established', 'session_terminated', 'error']);
    expect(stream.events.at(-1)?.data.code).toBe('USER_BLOCKED');
  });
});

async function block(stack: StackProcesses, userId: string): Promise<void> {
  const { startAdmin } = await import('../support/admin.ts');
  const admin = await startAdmin(stack.addresses);
  await admin('POST', `/v1/users/${userId}/block`);
}

/** Memory of all gateways. */
async function residentBytes({ gateways }: StackProcesses): Promise<number> {
  const each = gateways.map(({ url }) => total(url, 'tollgate_process_resident_memory_bytes'));
  return (await Promise.all(each)).reduce((sum, bytes) => sum + bytes, 0);
}

describe('many streams at once', () => {
  const COUNT = process.env.FRONT_ENDS === undefined ? 100 : 1_000;

  it(`all have every event of their run: ${COUNT} streams`, async () => {
    const before = await residentBytes(own());
    const streams = await Promise.all(
      Array.from({ length: COUNT }, async (_, at) => {
        const me = user();
        const body = { id: 'chat-1', messages: [{ id: 'm', role: 'user', parts: [{ type: 'text', text: 'Hello' }] }] };
        const stream = openStream(url('/v1/chat', at % 2), { method: 'POST', token: me.token, body });
        await until(() => stream.status !== undefined, { timeoutMs: 60_000 });
        return { me, stream };
      }),
    );
    const perStream = ((await residentBytes(own())) - before) / COUNT / 1_024;
    if (COUNT >= 1_000) process.stdout.write(`${COUNT} streams: ${perStream.toFixed(0)} KiB each in the gateways\n`);
    await Promise.all(
      streams.map(async ({ me, stream }) => {
        const runId = String(stream.headers['x-workflow-run-id']).split('.')[0] ?? '';
        const log = await worker.claim(me.userId, runId);
        for (const event of FULL_RUN) await event(log);
        await stream.ended(60_000);
      }),
    );
    expect(streams.filter(({ stream }) => stream.end !== 'complete' || stream.events.length !== 25)).toEqual([]);
  }, 180_000);
});

describe('a draining node', () => {
  it('ends each stream with SERVER_DRAINING and a reset, and ends the waits', async () => {
    const me = user();
    const stream = openStream(url('/v1/events', 1), { token: me.token });
    await stream.waitFor('connection_established');
    const { runId } = await startRun(me, { request_id: 'req_1' });
    const body = { message: 'Hello', request_id: 'req_1' };
    const waiting = openStream(url('/v1/runs?wait=40', 1), { method: 'POST', token: me.token, body });
    await until(async () => (await total(url('', 1), 'tollgate_limit_decisions_total')) > 0);
    const [, gateway] = own().gateways;
    await gateway?.stop();
    await Promise.all([stream.ended(), waiting.ended()]);
    expect([stream.end, stream.events.at(-1)?.data]).toMatchObject([
      'broken',
      { type: 'error', code: 'SERVER_DRAINING', retry_after_ms: expect.any(Number) },
    ]);
    expect([waiting.status, waiting.json.run_id]).toEqual([202, runId]);
    await gateway?.start();
  });
});
