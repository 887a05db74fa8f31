import type { ServerResponse } from 'node:http';
import { inspect } from 'node:util';
import { beforeAll, describe, expect, it } from '@jest/globals';
import { type Core, startCore } from '../support/core.ts';
import { cpuMs } from '../support/stopwatch.ts';
import { until } from '../support/until.ts';
import { HttpUpstream, onCalls, SessionUpstream } from '../support/upstreams/http-upstream.ts';
import { echo, type ServerScript, text } from '../support/upstreams/mcp-script.ts';
import { httpRow, programRow, type UpstreamNode, upstreamNode, wordsOf } from '../support/upstreams/upstream-node.ts';

let core: Core;

beforeAll(async () => {
  core = await startCore();
});

const HELLO = { words: 'hello' };
const SECOND = { timeout_seconds: 1 };

/** Expects that a failed call costs nothing and that the next one succeeds. */
async function costsOneCall(node: UpstreamNode, fail: () => Promise<unknown>, next = 'echo'): Promise<void> {
  const failed = await fail();
  expect(failed).toMatchObject({ success: false, error: { code: 'TOOL_FAILED', message: expect.any(String) } });
  const served = await node.call(next, HELLO);
  expect([served.success, wordsOf(served)]).toEqual([true, 'hello']);
  const records = await node.records();
  expect(records.map(({ status, units }) => [status, units])).toEqual([
    ['error', 0],
    ['success', 7],
  ]);
}

const stream = (response: ServerResponse) => response.writeHead(200, { 'content-type': 'text/event-stream' });
const event = (message: object) => `event: message\ndata: ${JSON.stringify({ jsonrpc: '2.0', ...message })}\n\n`;
const PROGRESS = event({ method: 'notifications/progress', params: { progressToken: 1, progress: 1 } });

/** Writes as long as the client reads. */
function forEver(response: ServerResponse, words: string): void {
  const more = () => {
    while (!response.destroyed && response.write(words));
  };
  response.on('drain', more);
  more();
}

describe('an upstream server over HTTP', () => {
  it.each([
    ['answers 500', (response: ServerResponse) => response.writeHead(500).end('secret stack of the server')],
    [
      'answers with a page',
      (response: ServerResponse) => response.writeHead(200, { 'content-type': 'text/html' }).end(),
    ],
    ['redirects', (response: ServerResponse) => response.writeHead(307, { location: 'http://169.254.169.254/' }).end()],
    ['resets the connection', (response: ServerResponse) => response.destroy()],
    [
      'resets it within its answer',
      (response: ServerResponse) => stream(response).write(PROGRESS, () => response.destroy()),
    ],
    ['ends its answer without a result', (response: ServerResponse) => stream(response).end(PROGRESS)],
    [
      'answers with broken JSON',
      (response: ServerResponse) => response.setHeader('content-type', 'application/json').end('{"jso'),
    ],
    [
      'answers without end',
      (response: ServerResponse) => forEver(response.setHeader('content-type', 'application/json'), ' '.repeat(65_536)),
    ],
    ['notifies without end', (response: ServerResponse) => forEver(stream(response), PROGRESS.repeat(100))],
    ['hangs', () => undefined],
    ['hangs within its answer', (response: ServerResponse) => stream(response).write(PROGRESS)],
  ])('that %s costs one failed call, whose error reveals nothing of it', async (_fault, fault) => {
    const upstream = await HttpUpstream.start({ tools: { echo } });
    const node = upstreamNode(core, [httpRow(upstream.url, ['echo'], SECOND)]);
    await node.discovered('echo');
    await costsOneCall(node, async () => {
      upstream.fault = onCalls(fault);
      const failed = await node.call('echo', HELLO);
      upstream.fault = () => false;
      expect(JSON.stringify(failed)).not.toMatch(/secret|127\.0\.0\.1|169\.254|stack/);
      return failed;
    });
  });

  it.each(['2026-07-28', '2025-11-25'])(
    'of %s that hangs receives a cancellation, and keeps no connection',
    async (protocol) => {
      let begun = 0;
      const hang = {
        run: () =>
          new Promise<never>(() => {
            begun += 1;
          }),
      };
      const upstream = await HttpUpstream.start({ tools: { echo, hang } });
      const node = upstreamNode(core, [httpRow(upstream.url, ['echo', 'hang'], { ...SECOND, protocol })]);
      await node.discovered('hang');
      const caller = new AbortController();
      const cancelled = node.call('hang', {}, { signal: caller.signal });
      await until(() => begun === 1);
      caller.abort();
      expect(await cancelled).toMatchObject({ success: false });
      const [call] = upstream.received('tools/call');
      if (protocol === '2025-11-25') {
        await until(() => upstream.received('notifications/cancelled').length === 1);
      }
      await call?.closed;
      expect((await node.call('hang')).error).toMatchObject({ message: 'The tool took too long.' });
      await upstream.received('tools/call')[1]?.closed;
      expect((await node.records()).map(({ status, units }) => [status, units])).toEqual([
        ['cancelled', 0],
        ['error', 0],
      ]);
    },
  );

  it('that says a secret in its failure has it in no log', async () => {
    const upstream = await HttpUpstream.start({ tools: { echo } });
    const node = upstreamNode(core, [httpRow(upstream.url, ['echo'])]);
    await node.discovered('echo');
    upstream.fault = onCalls((response) => response.writeHead(500).end('the secret, '.repeat(10_000)));
    const call = { tool: 'echo', args: HELLO, callId: 'call_1', signal: new AbortController().signal };
    const error = await node.upstreams
      .get('remote')
      ?.callTool(call)
      .catch((thrown) => thrown);
    expect(inspect(error, { depth: 10 })).toMatch(/500/);
    expect(inspect(error, { depth: 10 })).not.toMatch(/secret/);
  });

  it('that keeps sessions has one for all callers; a forgotten one is renewed and closed at the end', async () => {
    const tools: ServerScript['tools'] = { echo };
    const script = { tools };
    const upstream = await SessionUpstream.start(script);
    const node = upstreamNode(core, [httpRow(upstream.url, ['echo', 'later'])]);
    await node.discovered('echo');
    expect((await Promise.all([node.call('echo', HELLO), node.call('echo', HELLO)])).map(wordsOf)).toEqual([
      'hello',
      'hello',
    ]);
    expect(upstream.sessions).toBe(1);
    await until(() => upstream.requests.includes('GET '));
    script.tools = { ...tools, later: echo };
    await upstream.toolsChanged();
    await node.discovered('later');
    upstream.forget();
    expect(wordsOf(await node.call('echo', HELLO))).toBe('hello');
    expect(upstream.sessions).toBe(1);
    await node.upstreams.close();
    expect([upstream.sessions, upstream.requests.at(-1)]).toEqual([0, 'DELETE ']);
  });

  it('receives the call id and the trace context', async () => {
    const traceParent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`;
    const upstream = await HttpUpstream.start({ tools: { echo } });
    const traced = { ...core, tracing: { ...core.tracing, traceParent } };
    const node = upstreamNode(traced, [httpRow(upstream.url, ['echo'])]);
    await node.discovered('echo');
    const { tool_call_id } = await node.call('echo', HELLO);
    expect(upstream.received('tools/call')[0]?.message.params?._meta).toMatchObject({
      'tollgate/toolCallId': tool_call_id,
      traceparent: traceParent,
    });
  });

  it('that was started anew is listened to again', async () => {
    const script: ServerScript = { tools: { echo } };
    const upstream = await HttpUpstream.start(script);
    const node = upstreamNode(core, [httpRow(upstream.url, ['echo', 'later'])]);
    await node.discovered('echo');
    await until(() => upstream.received('subscriptions/listen').length === 1);
    await upstream.close();
    await upstream.listen();
    await until(async () => (await node.call('echo', HELLO)).success);
    // Repeated if a failed call abandoned the connection that opened it.
    await until(() => upstream.received('subscriptions/listen').length >= 2, { timeoutMs: 15_000 });
    script.tools = { echo, later: echo };
    upstream.toolsChanged();
    await node.discovered('later');
  });

  it('that is gone is left alone after some calls, and served again when it is back', async () => {
    const upstream = await HttpUpstream.start({ tools: { echo } });
    const node = upstreamNode(core, [httpRow(upstream.url, ['echo'])]);
    await node.discovered('echo');
    await upstream.close();
    const messages: unknown[] = [];
    for (let at = 0; at < 10; at++) messages.push((await node.call('echo', HELLO)).error?.message);
    expect(messages.at(-1)).toMatch(/has failed repeatedly/);
    expect(await core.metrics.registry.metrics()).toMatch(/upstream_breaker_state\{server="remote"\} 2/);
    await upstream.listen();
    await until(async () => (await node.call('echo', HELLO)).success, { timeoutMs: 15_000, everyMs: 250 });
    expect(await core.metrics.registry.metrics()).toMatch(/upstream_breaker_state\{server="remote"\} 0/);
  });

  it('that hangs holds no more calls than it may, and none of another server', async () => {
    const hang = { run: () => new Promise<never>(() => undefined) };
    const slow = await HttpUpstream.start({ tools: { hang } });
    const sound = await HttpUpstream.start({ tools: { echo } });
    const rows = [
      httpRow(slow.url, ['hang'], { name: 'slow', concurrency: 2, timeout_seconds: 2 }),
      httpRow(sound.url, ['echo']),
    ];
    const node = upstreamNode(core, rows);
    await Promise.all([node.discovered('hang'), node.discovered('echo')]);
    const hanging = Array.from({ length: 6 }, () => node.call('hang'));
    await until(() => slow.received('tools/call').length === 2);
    expect((await node.call('echo', HELLO)).success).toBe(true);
    const answered = (await Promise.all(hanging)).map(({ error }) => error?.message);
    expect(
      answered.filter((message) => message === "The tool's server is at its concurrency limit. Try again."),
    ).toHaveLength(4);
    expect(slow.received('tools/call')).toHaveLength(2);
  });
});

describe('an upstream program', () => {
  it.each([
    ['ends', 'die'],
    ['hangs, whatever it is sent', 'block'],
    ['notifies without end', 'flood'],
    ['writes a line without end', 'endless'],
  ])('that %s costs one failed call', async (_fault, tool) => {
    const node = upstreamNode(core, [programRow(['echo', tool], { timeout_seconds: 8 })]);
    await node.discovered('echo');
    await costsOneCall(node, () => node.call(tool));
  });

  it('that is killed is started again by the next call', async () => {
    const node = upstreamNode(core, [programRow(['echo', 'pid'])]);
    await node.discovered('pid');
    const pid = Number(wordsOf(await node.call('pid')));
    process.kill(pid, 'SIGKILL');
    await until(() => !isAlive(pid));
    const next = await until(async () => wordsOf(await node.call('pid')));
    expect(Number(next)).not.toBe(pid);
  });

  it('that writes invalid messages disturbs no other call', async () => {
    const node = upstreamNode(core, [programRow(['garbage', 'complain'])]);
    await node.discovered('garbage');
    expect(wordsOf(await node.call('garbage'))).toBe('after garbage');
    expect(wordsOf(await node.call('complain'))).toBe('complained');
  });

  it('ends with its process, however busy it is', async () => {
    const node = upstreamNode(core, [programRow(['block', 'pid'], { timeout_seconds: 20 })]);
    await node.discovered('pid');
    const pid = Number(wordsOf(await node.call('pid')));
    const blocked = node.call('block');
    await node.upstreams.close();
    expect(await blocked).toMatchObject({ success: false });
    await until(() => !isAlive(pid), { timeoutMs: 10_000 });
  });

  it('gets the variables that it is meant to have, and no other of the process', async () => {
    const env = { SECRET: `\${KEY_OF_THE_PROGRAM}` };
    const node = upstreamNode(core, [programRow(['environment', 'secret'], { env })], { KEY_OF_THE_PROGRAM: 's3' });
    await node.discovered('secret');
    expect(wordsOf(await node.call('secret'))).toBe('s3');
    const names = String(wordsOf(await node.call('environment'))).split(' ');
    expect(names).toContain('SECRET');
    expect(names.filter((name) => /TOLLGATE|REDIS|JEST|JWT/.test(name))).toEqual([]);
  });
});

describe('an upstream server that lies', () => {
  const BOMB = (() => {
    const $defs: Record<string, object> = { d40: { type: 'object' } };
    for (let at = 0; at < 40; at++)
      $defs[`d${at}`] = { allOf: [{ $ref: `#/$defs/d${at + 1}` }, { $ref: `#/$defs/d${at + 1}` }] };
    return { type: 'object' as const, $defs, allOf: [{ $ref: '#/$defs/d0' }] };
  })();
  const run = () => text('ran');

  it.each([
    ['no schema that can be used', { type: 'object', properties: { a: { type: 'nonsense' } } }],
    ['a reference to elsewhere', { type: 'object', properties: { a: { $ref: 'http://127.0.0.1:1/schema' } } }],
    ['a schema without end', { type: 'object', description: 'x'.repeat(40_000) }],
  ] as const)('about arguments, with %s, has that tool left out, and the others not', async (_lie, inputSchema) => {
    const upstream = await HttpUpstream.start({
      tools: { echo, liar: { row: { inputSchema: { ...inputSchema } }, run } },
    });
    const node = upstreamNode(core, [httpRow(upstream.url, ['echo', 'liar'])]);
    await node.discovered('echo');
    await expect(node.call('liar')).rejects.toMatchObject({ code: 'TOOL_NOT_AVAILABLE' });
    expect((await node.call('echo', HELLO)).success).toBe(true);
  });

  it.each([
    ['schema', BOMB, {}],
    [
      'pattern',
      // A lookahead, which RE2 does not support.
      { type: 'object', properties: { a: { type: 'string', pattern: '^(?!x)(a+)+$' } } },
      { a: `${'a'.repeat(40)}b` },
    ],
  ] as const)(
    'with a %s that takes forever to check delays no call beyond the bound',
    async (_lie, inputSchema, args) => {
      const upstream = await HttpUpstream.start({ tools: { liar: { row: { inputSchema: { ...inputSchema } }, run } } });
      const node = upstreamNode(core, [httpRow(upstream.url, ['liar'])]);
      await node.discovered('liar');
      // A check occupies the process by computing. CPU time does not depend on the load of the machine.
      const spentMs: number[] = [];
      for (let at = 0; at < 6; at++) {
        const before = cpuMs();
        // The server decides what its arguments are.
        expect((await node.call('liar', args)).success).toBe(true);
        spentMs.push(cpuMs() - before);
      }
      expect(Math.max(...spentMs)).toBeLessThan(2_000);
      // Three times are enough: later calls are not delayed.
      expect(Math.min(...spentMs.slice(3))).toBeLessThan(150);
    },
  );

  it('with nested loops in a pattern has arguments checked, without a deadline being met', async () => {
    const inputSchema = { type: 'object' as const, properties: { a: { type: 'string', pattern: '^(a+)+$' } } };
    const upstream = await HttpUpstream.start({ tools: { liar: { row: { inputSchema }, run } } });
    const node = upstreamNode(core, [httpRow(upstream.url, ['liar'])]);
    await node.discovered('liar');
    // More often than a check that exceeds its deadline is repeated.
    for (let at = 0; at < 5; at++) {
      const refused = { code: 'FORMAT_ERROR', message: expect.stringContaining('must match pattern') };
      await expect(node.call('liar', { a: `${'a'.repeat(60)}b` })).rejects.toMatchObject(refused);
    }
    expect((await node.call('liar', { a: 'a'.repeat(60) })).success).toBe(true);
  });

  it('with a pattern that backtracks leaves long strings to the server', async () => {
    const properties = { a: { type: 'string', pattern: '^(?!x)a' } };
    const inputSchema = { type: 'object' as const, properties };
    const upstream = await HttpUpstream.start({ tools: { liar: { row: { inputSchema }, run } } });
    const node = upstreamNode(core, [httpRow(upstream.url, ['liar'])]);
    await node.discovered('liar');
    for (let at = 0; at < 5; at++) expect((await node.call('liar', { a: 'b'.repeat(1_025) })).success).toBe(true);
    await expect(node.call('liar', { a: 'b'.repeat(1_024) })).rejects.toMatchObject({ code: 'FORMAT_ERROR' });
  });

  it.each([
    ['none', () => text('no structure')],
    ['another', () => ({ content: [], structuredContent: { found: 'many' } })],
    ['no content at all', () => ({ nothing: true }) as never],
  ])('about results, with %s, costs one failed call', async (_lie, lie) => {
    const outputSchema = { type: 'object', properties: { found: { type: 'number' } }, required: ['found'] };
    const tools: ServerScript['tools'] = { echo, liar: { row: { outputSchema } as never, run: lie } };
    const upstream = await HttpUpstream.start({ tools });
    const node = upstreamNode(core, [httpRow(upstream.url, ['echo', 'liar'])]);
    await node.discovered('liar');
    await costsOneCall(node, () => node.call('liar'));
  });

  it('changes its output schema during a call, and both the old and the new form are accepted', async () => {
    const answers: (() => void)[] = [];
    const form = (type: string) => ({ type: 'object', properties: { found: { type } }, required: ['found'] });
    const given: unknown[] = [1, 'many', true];
    const tool = {
      row: { outputSchema: form('number') } as never,
      run: async () => {
        await new Promise<void>((resolve) => answers.push(resolve));
        return { content: [], structuredContent: { found: given.shift() } };
      },
    };
    const upstream = await HttpUpstream.start({ tools: { tool } });
    const node = upstreamNode(core, [httpRow(upstream.url, ['tool'])]);
    await node.discovered('tool');
    const discovered = () => node.upstreams.all[0]?.capabilities.tools.get('tool')?.compiledFrom;
    const before = discovered();
    const calls = [0, 1, 2].map(() => node.call('tool'));
    await until(() => answers.length === calls.length);
    Object.assign(tool.row, { outputSchema: form('string') });
    upstream.toolsChanged();
    await until(() => discovered() !== before, { timeoutMs: 15_000 });
    for (const answer of answers) answer();
    const results = await Promise.all(calls);
    expect(results.map(({ success }) => success).sort()).toEqual([false, true, true]);
  });

  it('with too many tools provides the allowed ones or none, and other servers keep working', async () => {
    const many = Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`tool${at}`, { run }]));
    const flooding = await HttpUpstream.start({ tools: { ...many, wanted: { run } } });
    const sound = await HttpUpstream.start({ tools: { echo } });
    const rows = [httpRow(flooding.url, ['wanted'], { name: 'flooding' }), httpRow(sound.url, ['echo'])];
    const node = upstreamNode(core, rows);
    await node.discovered('echo');
    await until(() => flooding.received('tools/list').length > 0);
    expect(node.catalogues.tools.all.filter(({ executor }) => executor === 'upstream').map(({ name }) => name)).toEqual(
      ['echo'],
    );
    expect((await node.call('echo', HELLO)).success).toBe(true);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
