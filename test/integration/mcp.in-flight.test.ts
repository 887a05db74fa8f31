import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from '@jest/globals';
import { createApp } from '../../src/http/app.ts';
import { ProtectedResource } from '../../src/http/mcp-metadata-routes.ts';
import { registerMcpRoutes } from '../../src/http/mcp-routes.ts';
import { describeRoutes } from '../../src/http/openapi.ts';
import { Metrics } from '../../src/lib/metrics.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { InFlight } from '../../src/mcp/in-flight.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import { silentLogger } from '../support/core.ts';
import { requestLegacy } from '../support/mcp.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

/** A response of many events, larger than what the kernel buffers. */
function largeStream(): Response {
  let events = 0;
  const event = new TextEncoder().encode(`data: ${'x'.repeat(64 * 1_024)}\n\n`);
  const body = new ReadableStream({
    pull: (controller) => (events++ < 500 ? controller.enqueue(event) : controller.close()),
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
}

/** The HTTP route with responses on demand; the token is the name of the user. */
async function route(stalledResponseMs?: number) {
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  const inFlight = new InFlight({ perUser: 2, perNode: 3 });
  const app = createApp({
    logger: silentLogger,
    trustedProxyHops: 0,
    ...(stalledResponseMs === undefined ? {} : { stalledResponseMs }),
  });
  await describeRoutes(app);
  registerMcpRoutes(app, {
    server: {
      async serve({ body }) {
        if (body.method === 'tools/call') return largeStream();
        await released;
        return Response.json({ jsonrpc: '2.0', id: body.id, result: {} });
      },
    },
    inFlight,
    identify: async ({ headers }) => ({ userId: headers.authorization, plan: 'free' }) as Identity,
    resource: new ProtectedResource({ publicUrl: undefined, path: '/mcp', issuers: ['http://issuer.test'] }),
    allowedOrigins: [],
    origins: { allow: () => true },
    drainRetryMs: () => undefined,
    messageLimiter: {
      blockedInMemoryMs: () => 0,
      takeCounted: () => true,
      consume: () => ({ decision: Promise.resolve({ allowed: true, degraded: false }), counterAtMost: 30 }),
    },
    watch: { run: (_surface, _request, work) => work() },
    metrics: new Metrics(),
    refusals: { refused: () => undefined },
    logger: silentLogger,
    tracing: NO_TRACING,
    trustsTraces: true,
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  closeAfter('test', () => app.close());
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
  const ping = (token: string, id: number, signal?: AbortSignal) =>
    requestLegacy('ping', {}, { url, token, id, signal });
  return { url, ping, inFlight, release: () => release() };
}

describe('requests in flight over HTTP', () => {
  it('are bounded by user with 429 and by node with 503, each with the id and Retry-After', async () => {
    const { ping: request, inFlight, release } = await route();
    const first = [request('one', 1), request('one', 2)];
    await until(() => inFlight.total === 2);
    const third = await request('one', 3);
    expect([third.status, third.body.id, third.body.error.code]).toEqual([429, 3, -33029]);
    expect(third.headers.get('retry-after')).toBe('1');
    const other = request('two', 4);
    await until(() => inFlight.total === 3);
    const beyond = await request('three', 5);
    expect([beyond.status, beyond.body.id, beyond.body.error.code]).toEqual([503, 5, -33503]);
    release();
    expect((await Promise.all([...first, other])).map(({ status }) => status)).toEqual([200, 200, 200]);
    await until(() => inFlight.total === 0);
  });

  it('give their place back when their client hangs up before the answer', async () => {
    const { ping: request, inFlight } = await route();
    const leaving = new AbortController();
    const lost = request('one', 1, leaving.signal).catch(() => 'gone');
    await until(() => inFlight.total === 1);
    leaving.abort();
    expect(await lost).toBe('gone');
    await until(() => inFlight.total === 0);
  });

  it('give their place back when their client reads nothing of a stream, and a client that reads has all of it', async () => {
    const { url, inFlight } = await route(2_000);
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: {} });
    const init = {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream', authorization: 'one' },
    };
    const stalled = request(`${url}/mcp`, init, (response) => response.socket.pause()).end(body);
    stalled.on('error', () => undefined);
    await until(() => inFlight.total === 1);
    const whole = await (await fetch(`${url}/mcp`, { ...init, body })).text();
    expect(whole.match(/data: /g)).toHaveLength(500);
    await until(() => inFlight.total === 0);
    stalled.destroy();
  });
});
