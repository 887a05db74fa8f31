import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { Tollgate } from '../../packages/client/src/tollgate.ts';
import { EventStreamParser } from '../../packages/client/src/transports/event-stream-parser.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

describe('the parser of event streams', () => {
  const STREAM =
    ': hello\r\n\r\nid: e:1\r\ndata: {"a":1}\r\n\r\n: ping\n\nretry: 5\ndata:one\ndata: two\n\n\ndata: cut';

  it('finds the same events however the bytes arrive, and reports comments', () => {
    for (let size = 1; size <= STREAM.length; size++) {
      const events: string[] = [];
      const parser = new EventStreamParser((data) => events.push(data));
      let comments = 0;
      for (let at = 0; at < STREAM.length; at += size) comments += Number(parser.feed(STREAM.slice(at, at + size)));
      expect(events).toEqual(['{"a":1}', 'one\ntwo']);
      expect(comments).toBeGreaterThan(0);
    }
  });

  it('refuses a line without an end', () => {
    const parser = new EventStreamParser(() => {});
    expect(() => parser.feed('x'.repeat(16 * 2 ** 20 + 1))).toThrow('an event is too long');
  });
});

type Route = (request: IncomingMessage, response: ServerResponse) => void;

/** A client and the server that a test plays. The stream opens with a welcome. */
async function connected(post: Route) {
  const streams: { readonly request: IncomingMessage; readonly response: ServerResponse }[] = [];
  const server = createServer((request, response) => {
    if (!request.url?.startsWith('/v1/events')) return post(request, response);
    streams.push({ request, response });
    const welcome = { type: 'connection_established', authenticated: true, epoch: 'e1', seq: 0, thread_id: 't1' };
    response.write(`: hello\n\ndata: ${JSON.stringify({ ...welcome, limits: { heartbeat_interval: 30 } })}\n\n`);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closeAfter('test', () => {
    server.close();
    server.closeAllConnections();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const backoff = { firstMs: 10, maxMs: 10 };
  const client = new Tollgate({ url, getToken: () => 'token', transport: 'sse', backoff });
  closeAfter('test', () => client.close());
  client.connect();
  await until(() => client.state === 'connected');
  const emit = (fields: object) => streams.at(-1)?.response.write(`data: ${JSON.stringify(fields)}\n\n`);
  return { client, streams, emit };
}

describe('the client over server-sent events', () => {
  it('repeats a request until the gateway itself answers, under one request id', async () => {
    const bodies: string[] = [];
    const { client } = await connected(async (request, response) => {
      let body = '';
      for await (const chunk of request) body += chunk;
      bodies.push(body);
      const draining = JSON.stringify({ error: { code: 'SERVER_DRAINING', retryable: true } });
      if (bodies.length === 1) request.socket.destroy();
      else if (bodies.length === 2) response.writeHead(502).end('<h1>Bad Gateway</h1>');
      else if (bodies.length === 3) response.writeHead(503).end(draining);
      else response.writeHead(202).end(JSON.stringify({ run_id: 'run_1', thread_id: 't1' }));
    });
    const run = client.run('Hello');
    expect(await run.accepted).toEqual({ runId: 'run_1', threadId: 't1' });
    const same = JSON.stringify({ thread_id: 't1', message: 'Hello', request_id: run.requestId });
    expect(bodies).toEqual([same, same, same, same]);
  });

  it('resolves with the outcome of a tool that failed, and rejects with the error of a refused call', async () => {
    const failed = { success: false, error: { code: 'TOOL_FAILED', message: 'It failed.', retryable: false } };
    const { client } = await connected((request, response) => {
      if (request.url === '/v1/tools/bad')
        response.writeHead(200).end(JSON.stringify({ tool_call_id: 'c1', ...failed }));
      else response.writeHead(403).end(JSON.stringify({ error: { code: 'PERMISSION_DENIED', retryable: false } }));
    });
    expect(await client.callTool('bad')).toMatchObject({ tool_call_id: 'c1', ...failed });
    await expect(client.callTool('denied')).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
  });

  it('answers an input request with a request of its own', async () => {
    const requests: unknown[] = [];
    const { client } = await connected(async (request, response) => {
      let body = '';
      for await (const chunk of request) body += chunk;
      requests.push([request.method, request.url, JSON.parse(body)]);
      response
        .writeHead(200)
        .end(JSON.stringify({ run_id: 'run_1', input_id: 'a/b', action: 'decline', repeated: true }));
    });
    expect(await client.respond({ run_id: 'run_1', input_id: 'a/b' }, { action: 'decline' })).toEqual({
      repeated: true,
    });
    expect(requests).toEqual([['POST', '/v1/runs/run_1/inputs/a%2Fb', { action: 'decline' }]]);
  });

  it('rejects with the error of the gateway', async () => {
    const error = { code: 'QUOTA_EXCEEDED', message: 'Too many runs.', retryable: false, limit: 5 };
    const { client } = await connected((_, response) => response.writeHead(429).end(JSON.stringify({ error })));
    await expect(client.run('Hello').result()).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED', fields: { limit: 5 } });
    await expect(client.callTool('search')).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED', retryable: false });
  });

  it('sends each request to its route', async () => {
    const requests: unknown[] = [];
    const { client } = await connected(async (request, response) => {
      let body = '';
      for await (const chunk of request) body += chunk;
      requests.push([request.method, request.url, body === '' ? undefined : JSON.parse(body)]);
      response.writeHead(200).end(JSON.stringify({ tools: [], threads: [], messages: [], before: null }));
    });
    await client.callTool('a/b', { x: 1 }, { idempotencyKey: 'k' });
    await client.tools();
    await client.threads.list();
    await client.threads.history('thread_1', { before: '5-0', limit: 2 });
    await client.threads.history('thread_1');
    await client.usage();
    const call = { arguments: { x: 1 }, idempotency_key: 'k', thread_id: 't1', request_id: expect.any(String) };
    expect(requests).toEqual([
      ['POST', '/v1/tools/a%2Fb', call],
      ['GET', '/v1/tools', undefined],
      ['GET', '/v1/threads', undefined],
      ['GET', '/v1/threads/thread_1/messages?before=5-0&limit=2', undefined],
      ['GET', '/v1/threads/thread_1/messages?', undefined],
      ['GET', '/v1/usage', undefined],
    ]);
  });

  it('continues after the last event, when the stream breaks and when one is missing', async () => {
    const { client, streams, emit } = await connected(() => {});
    const seqs: number[] = [];
    client.on('event', ({ seq }) => seqs.push(seq));
    emit({ type: 'agent_thinking', seq: 1 });
    await until(() => seqs.length === 1);
    streams[0]?.request.socket.resetAndDestroy();
    await until(() => streams.length === 2);
    expect(streams[1]?.request.url).toBe('/v1/events?after=1&epoch=e1');
    emit({ type: 'resumed', from: 1, to: 1, epoch: 'e1' });
    emit({ type: 'agent_thinking', seq: 3 });
    await until(() => streams.length === 3);
    expect(streams[2]?.request.url).toBe('/v1/events?after=1&epoch=e1');
    for (const seq of [2, 3]) emit({ type: 'agent_thinking', seq });
    await until(() => seqs.length === 3);
    expect(seqs).toEqual([1, 2, 3]);
  });

  it('stays away when the stream ends with an error that forbids to come back', async () => {
    const { client, streams, emit } = await connected(() => {});
    const codes: string[] = [];
    client.on('error', ({ code }) => codes.push(code));
    emit({ type: 'error', code: 'CONNECTION_LIMIT_EXCEEDED', retryable: false });
    streams[0]?.response.end();
    await until(() => client.state === 'stopped');
    expect(codes.at(-1)).toBe('CONNECTION_LIMIT_EXCEEDED');
  });

  it('opens the stream again with a token of its own', async () => {
    let tokens = 0;
    const { client, streams, emit } = await connected(() => {});
    client.close();
    const getToken = () => `token-${++tokens}`;
    const url = `http://${streams[0]?.request.headers.host}`;
    const other = new Tollgate({ url, getToken, transport: 'sse' });
    closeAfter('test', () => other.close());
    other.connect();
    await until(() => other.state === 'connected');
    emit({ type: 'token_degraded' });
    await until(() => streams.length === 3);
    expect(streams.map(({ request }) => request.headers.authorization)).toEqual([
      'Bearer token',
      'Bearer token-1',
      'Bearer token-2',
    ]);
  });
});
