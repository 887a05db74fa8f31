import { fileURLToPath } from 'node:url';
import { describe, expect, it } from '@jest/globals';
import { until } from '../support/until.ts';
import { loneUpstream } from '../support/upstreams/lone-upstream.ts';
import {
  GOOD_RESULT,
  GOOD_TOOL,
  GREETING,
  type ScriptedAnswer,
  type ScriptedAnswers,
  ScriptedServer,
} from '../support/upstreams/scripted-server.ts';

const LEGACY = { protocol: '2025-11-25' };
const error = (code: number, message: string) => ({ error: { code, message } });

describe('a lost session', () => {
  /** A server with sessions that answers in this way after it has lost them. */
  async function forgetful(lost: (id: unknown) => ScriptedAnswer, annotations: object = {}) {
    let session = 1;
    const known = (answer: ScriptedAnswer) => {
      return ({ headers, id }: { headers: object; id: unknown }) => {
        return (headers as { 'mcp-session-id'?: string })['mcp-session-id'] === String(session) ? answer : lost(id);
      };
    };
    const initialize = ({ id }: { id: unknown }): ScriptedAnswer => ({
      headers: { 'mcp-session-id': String(session) },
      body: { id, result: { ...GREETING, capabilities: { tools: {} } } },
    });
    const server = await ScriptedServer.start({
      initialize,
      'tools/list': known({ result: { tools: [{ ...GOOD_TOOL, annotations }] } }),
      'tools/call': known({ result: GOOD_RESULT }),
    });
    const lone = loneUpstream({ url: server.url, ...LEGACY });
    await lone.ready('good');
    return { server, ...lone, forget: () => (session += 1) };
  }

  const rpc = (status: number, code: number, message: string) => (id: unknown) => {
    return { status, body: { id: status === 200 ? id : null, error: { code, message } } };
  };

  it.each<[string, (id: unknown) => ScriptedAnswer]>([
    ['HTTP 404', () => ({ status: 404 })],
    ['HTTP 404 with JSON-RPC', rpc(404, -32001, 'Session not found')],
    ['HTTP 400 with JSON-RPC', rpc(400, -32000, 'Bad Request: No valid session ID provided')],
    ['HTTP 400 with text', () => ({ status: 400, body: 'Invalid session ID' })],
    ['HTTP 410 with JSON-RPC', rpc(410, -32000, 'Session terminated')],
    ['HTTP 503 with JSON-RPC', rpc(503, -32000, 'Unknown or expired session')],
    ['HTTP 401 with JSON-RPC', rpc(401, -32001, 'Session expired')],
    ['HTTP 400 of a server that was not initialized', rpc(400, -32000, 'Bad Request: Server not initialized')],
  ])('reported by %s is renewed, and the call is repeated, because it was not read', async (_name, lost) => {
    const { server, call, forget } = await forgetful(lost);
    forget();
    expect(await call('good')).toBe('fine');
    expect(server.received('initialize')).toHaveLength(2);
    expect(server.received('tools/call')).toHaveLength(2);
  });

  const WORDS: [string, (id: unknown) => ScriptedAnswer][] = [
    ['-32002', rpc(200, -32002, 'Session not found')],
    ['-32600', rpc(200, -32600, 'Session not found')],
    ['-32001', rpc(200, -32001, 'Unknown session')],
    ['-32000', rpc(200, -32000, 'The session has expired')],
    ['-32602, of a server that was not initialized', rpc(200, -32602, 'Received request before initialization')],
  ];

  it.each(WORDS)('reported by HTTP 200 with %s is renewed for the next call', async (_name, lost) => {
    const { server, call, forget, upstream } = await forgetful(lost);
    forget();
    expect(await call('good')).toMatchObject({ code: 'TOOL_FAILED', message: expect.stringMatching(/session|init/i) });
    expect(await call('good')).toBe('fine');
    expect(server.received('initialize')).toHaveLength(2);
    expect(upstream.status.breakers.calls).toBe('closed');
  });

  it.each([{ readOnlyHint: true }, { idempotentHint: true }])(
    'reported by HTTP 200 has the call repeated when the tool has %j',
    async (annotations) => {
      const { call, forget } = await forgetful(rpc(200, -32600, 'Session not found'), annotations);
      forget();
      expect(await call('good')).toBe('fine');
    },
  );

  it('is not assumed more often than every five seconds, whatever words a tool uses for its own sessions', async () => {
    const { server, call } = await forgetful(() => 'reset');
    server.answers = { ...server.answers, 'tools/call': error(-32602, 'Session not found: 17') };
    for (let at = 0; at < 6; at++) expect(await call('good')).toMatchObject({ message: 'Session not found: 17' });
    expect(server.received('initialize').length).toBeLessThanOrEqual(2);
  });
});

describe('a server with the protocol auto', () => {
  it.each<[string, ScriptedAnswer]>([
    ['HTTP 401', { status: 401 }],
    ['HTTP 403', { status: 403 }],
    ['HTTP 404', { status: 404 }],
    ['HTTP 405', { status: 405 }],
    ['HTTP 500', { status: 500 }],
    ['HTTP 502 with a page', { status: 502, body: '<html>' }],
    ['HTTP 503', { status: 503 }],
    ['HTTP 429', { status: 429, headers: { 'retry-after': '60' } }],
    ['an error without an id', { body: { id: null, error: { code: -32600, message: 'Invalid Request' } } }],
    ['a result without an id', { body: { id: null, result: {} } }],
    ['an empty result', { result: {} }],
    ['HTTP 202', { status: 202 }],
    ['HTTP 204', { status: 204 }],
    ['HTTP 200 without a body', { status: 200 }],
    ['a page', { headers: { 'content-type': 'text/html' }, body: '<html>' }],
    ['broken JSON', { body: '{"jsonrpc":' }],
    ['an event stream without a message', { headers: { 'content-type': 'text/event-stream' }, body: ': hello\n\n' }],
    ['a redirect', { status: 302, headers: { location: '/login' } }],
    ['a reset', 'reset'],
    ['silence', 'silence'],
  ])('that answers the probe with %s is connected by initialize', async (_name, probe) => {
    const server = await ScriptedServer.start({ 'server/discover': probe });
    const { ready, call, upstream } = loneUpstream({ url: server.url });
    await ready('good');
    expect(await call('good')).toBe('fine');
    expect(upstream.status).toMatchObject({
      protocol: '2025-06-18',
      implementation: { name: 'scripted', version: '1' },
    });
  });

  it('is not probed again after it was found to be old', async () => {
    const server = await ScriptedServer.start({ 'server/discover': { status: 403 } });
    const { ready, call } = loneUpstream({ url: server.url });
    await ready('good');
    server.answers = { ...server.answers, 'tools/call': 'reset' };
    await call('good');
    server.answers = {};
    expect(await call('good')).toBe('fine');
    expect(server.received('initialize')).toHaveLength(2);
    expect(server.received('server/discover')).toHaveLength(1);
  });

  it('that refuses the credentials is reported with both answers, and is probed again', async () => {
    const server = await ScriptedServer.start({ 'server/discover': { status: 401 }, initialize: { status: 401 } });
    const { upstream, ready } = loneUpstream({ url: server.url });
    await until(() => upstream.status.state === 'failing', { timeoutMs: 15_000 });
    expect(upstream.status.problem).toMatch(/401.*initialize.*401/);
    server.answers = {};
    await ready('good');
  });
});

describe('a server with an old protocol', () => {
  it('is offered the version of its row first', async () => {
    const server = await ScriptedServer.start({});
    await loneUpstream({ url: server.url, protocol: '2025-03-26' })
      .ready('good')
      .catch(() => undefined);
    expect(server.received('initialize')[0]?.params.protocolVersion).toBe('2025-03-26');
  });
});

describe('a program', () => {
  const SCRIPT = fileURLToPath(new URL('../support/upstreams/scripted-program.ts', import.meta.url));
  const program = (options: readonly string[], row: object = {}) => {
    const args = ['--disable-warning=ExperimentalWarning', SCRIPT, ...options];
    return loneUpstream({ command: process.execPath, args, ...LEGACY, ...row });
  };

  it.each([
    [['exit'], {}],
    [['mute'], { start_seconds: 6 }],
    [[], {}],
  ])('with the options %j and the protocol auto is connected by initialize', async (options, row) => {
    const { ready, call } = program(options, { protocol: 'auto', ...row });
    await ready('good');
    expect(await call('good')).toMatch(/^fine/);
  });

  it('that starts more slowly than a request may take is started once', async () => {
    const { ready, call } = program(['slow=5000'], { timeout_seconds: 1, start_seconds: 20 });
    await ready('good');
    const startedAt = Number(String(await call('good')).split(' ')[1]);
    expect(Date.now() - startedAt).toBeGreaterThan(4_500);
  });

  it('that starts more slowly than start_seconds is reported', async () => {
    const { upstream } = program(['slow=60000'], { start_seconds: 1 });
    await until(() => upstream.status.state === 'failing', { timeoutMs: 15_000 });
    expect(upstream.status.problem).toMatch(/no connection: .*REQUEST_TIMEOUT/);
  });

  it('that does not declare its tools, and lists an odd row, has its good ones', async () => {
    const { ready, upstream } = program(['undeclared']);
    await ready('good');
    expect(upstream.capabilities.omitted).toMatchObject([{ name: '', reason: 'is not an object' }]);
  });

  it('with a result above the bound fails that call only, and keeps running', async () => {
    const { ready, call, upstream } = program(['large=200000'], { response_kib: 64 });
    await ready('good');
    const before = await call('good');
    for (let at = 0; at < 8; at++)
      expect(await call('odd')).toMatchObject({ message: expect.stringMatching(/larger/) });
    expect(await call('good')).toBe(before);
    expect(upstream.status.breakers.calls).toBe('closed');
  });
});

describe('a tool that runs as a task', () => {
  const TASKS = { tools: {}, tasks: { requests: { tools: { call: {} } }, cancel: {} } };
  const taskTool = { ...GOOD_TOOL, execution: { taskSupport: 'required' } };
  const states =
    (...all: string[]) =>
    () => ({ result: { ...TASK, status: all.shift() ?? 'working' } });
  const TASK = { taskId: 't1', status: 'working', createdAt: '2026-01-01T00:00:00Z', ttl: 1_000, pollInterval: 1 };

  async function tasking(answers: ScriptedAnswers, row: object = {}) {
    const server = await ScriptedServer.start({
      initialize: { result: { ...GREETING, protocolVersion: '2025-11-25', capabilities: TASKS } },
      'tools/list': { result: { tools: [taskTool] } },
      'tools/call': ({ params }) => (params.task ? { result: { task: TASK } } : error(-32601, 'needs a task')),
      'tasks/result': { result: GOOD_RESULT },
      'tasks/cancel': { result: { ...TASK, status: 'cancelled' } },
      ...answers,
    });
    const lone = loneUpstream({ url: server.url, ...LEGACY, ...row });
    await lone.ready('good');
    return { server, ...lone };
  }

  it('returns the result of the task when it has ended', async () => {
    const { call, server } = await tasking({ 'tasks/get': states('working', 'completed') });
    expect(await call('good')).toBe('fine');
    expect(server.received('tasks/get').map(({ params }) => params.taskId)).toEqual(['t1', 't1']);
  });

  it('returns the result of a server that answers at once', async () => {
    const { call } = await tasking({ 'tools/call': { result: GOOD_RESULT } });
    expect(await call('good')).toBe('fine');
  });

  it.each([
    ['input_required', /needs input/],
    ['cancelled', /cancelled the task/],
  ])('fails when the task is %s', async (status, message) => {
    const { call } = await tasking({ 'tasks/get': states(status) });
    expect(await call('good')).toMatchObject({ code: 'TOOL_FAILED', message: expect.stringMatching(message) });
  });

  it('is cancelled when its time is up', async () => {
    const { call, server } = await tasking({ 'tasks/get': states() }, { timeout_seconds: 1 });
    expect(await call('good')).toMatchObject({ message: 'The tool took too long.' });
    await until(() => server.received('tasks/cancel').length === 1);
  });

  it('is called without a task when the server declares no tasks', async () => {
    const { call, server } = await tasking({
      initialize: { result: { ...GREETING, capabilities: { tools: {} } } },
      'tools/call': { result: GOOD_RESULT },
    });
    expect(await call('good')).toBe('fine');
    expect(server.received('tools/call')[0]?.params.task).toBeUndefined();
  });
});
