import { beforeAll, describe, expect, it } from '@jest/globals';
import type { Catalogues } from '../../src/catalogue/catalogues.ts';
import type { ConnectionContext, MessageContext } from '../../src/connections/connection-context.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { InFlight } from '../../src/mcp/in-flight.ts';
import { McpDispatcher } from '../../src/mcp/mcp-dispatcher.ts';
import { McpResources } from '../../src/mcp/mcp-resources.ts';
import { McpServer } from '../../src/mcp/mcp-server.ts';
import type { McpTools } from '../../src/mcp/mcp-tools.ts';
import type { Identity } from '../../src/protocol/identity.ts';
import type { ToolContext } from '../../src/tools/tool.ts';
import { catalogues, planRow, toolRow } from '../support/catalogues.ts';
import { type Core, silentLogger, startCore } from '../support/core.ts';
import { LEGACY, MODERN, modernRequest, requestStates } from '../support/mcp.ts';
import { freshUserId } from '../support/tokens.ts';
import { toolNode, UNLIMITED } from '../support/tools.ts';
import { until } from '../support/until.ts';

let core: Core;
let files: Catalogues;

beforeAll(async () => {
  core = await startCore();
  files = catalogues({ tools: [toolRow({ name: 'slow' })], plans: { one: planRow({}) } }, 'file');
});

const states = requestStates();
const noResources = new McpResources({ upstreams: { all: [] }, states, permissions: { has: () => false } });

/** MCP over real tool calls, with a tool that ends only on demand or when it is aborted. */
function serving() {
  let finish: () => void = () => undefined;
  const notified = new Promise<void>((resolve) => {
    finish = resolve;
  });
  let began = 0;
  let stopped = 0;
  const slow = async (_args: unknown, { signal }: ToolContext) => {
    began += 1;
    signal.addEventListener('abort', () => {
      stopped += 1;
    });
    await notified;
    return { done: true };
  };
  const { service } = toolNode(core, { catalogues: files, executors: { slow } });
  const tools: McpTools = {
    describe: () => [],
    isUpstream: () => false,
    call: (request, limit) => service.call(request, limit),
  };
  const server = new McpServer({
    tools,
    resources: noResources,
    states,
    refusals: { refused: () => undefined },
    logger: silentLogger,
    tracing: NO_TRACING,
  });
  return { server, finish: () => finish(), counts: () => ({ began, stopped }) };
}

function identityOf(userId: string): Identity {
  return {
    userId,
    email: undefined,
    plan: 'one',
    permissions: [],
    roles: [],
    featureFlags: {},
    sessionId: undefined,
    tokenId: 'jti',
    tokenIssuedAt: 0,
    tokenExpiresAt: Number.MAX_SAFE_INTEGER,
    method: 'header',
  };
}

const caller = () => ({ identity: identityOf(freshUserId()), degraded: false, threadId: 'thread_1', limit: UNLIMITED });

function httpCall(era: 'modern' | 'legacy', meta: Record<string, unknown>, signal: AbortSignal) {
  const params = { name: 'slow', arguments: {}, _meta: meta };
  const body =
    era === 'modern' ? modernRequest('tools/call', params) : { jsonrpc: '2.0', id: 1, method: 'tools/call', params };
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'mcp-protocol-version': era === 'modern' ? MODERN : LEGACY,
    ...(era === 'modern' ? { 'mcp-method': 'tools/call', 'mcp-name': 'slow' } : {}),
  };
  return { request: new Request('http://gateway/mcp', { method: 'POST', headers, signal }), body };
}

describe('a call over HTTP whose client is gone', () => {
  it.each([
    ['modern', {}, 1],
    ['modern', { 'tollgate/idempotencyKey': 'comes-back' }, 0],
    ['legacy', {}, 0],
  ] as const)('in the %s era with %j is stopped %i times, and never answered', async (era, meta, times) => {
    const { server, finish, counts } = serving();
    const leaving = new AbortController();
    const response = server.serve({ ...httpCall(era, meta, leaving.signal), caller: caller(), signalCancels: false });
    await until(() => counts().began === 1);
    leaving.abort();
    expect((await response).status).toBe(499);
    expect(counts().stopped).toBe(times);
    finish();
  });

  it('is answered under its key when the client comes back, with the outcome of the first', async () => {
    const { server, finish, counts } = serving();
    const who = caller();
    const leaving = new AbortController();
    const meta = { 'tollgate/idempotencyKey': 'k' };
    const lost = server.serve({ ...httpCall('modern', meta, leaving.signal), caller: who, signalCancels: false });
    await until(() => counts().began === 1);
    leaving.abort();
    await lost;
    const again = httpCall('legacy', meta, new AbortController().signal);
    const answer = server.serve({ ...again, caller: who, signalCancels: false });
    finish();
    expect(await (await answer).json()).toMatchObject({
      result: { structuredContent: { done: true }, _meta: { 'tollgate/repeated': true } },
    });
    expect(counts()).toEqual({ began: 1, stopped: 0 });
  });
});

describe('a call over WebSocket', () => {
  const createRpcDispatcher = (server: McpServer, inFlight = new InFlight()) => {
    const deps = { server, inFlight, tracing: NO_TRACING, trustsTraces: true };
    return new McpDispatcher(deps, (frame) => {
      throw new Error(`nobody has reported anything: ${frame}`);
    });
  };
  const context = (): MessageContext => ({
    connection: { degraded: false, threadId: 'thread_1' } as ConnectionContext,
    identity: identityOf(freshUserId()),
    limit: UNLIMITED,
  });
  const call = (id: number) => ({ id, method: 'tools/call', params: { name: 'slow', arguments: {} } });
  const cancel = (requestId: number) => ({ id: undefined, method: 'notifications/cancelled', params: { requestId } });

  it('is stopped by a notification that names it, and gets no answer; another one goes on', async () => {
    const { server, finish, counts } = serving();
    const inFlight = new InFlight();
    const ctx = context();
    const conversation = createRpcDispatcher(server, inFlight);
    const first = conversation.answer(ctx, call(1));
    const second = conversation.answer(ctx, call(2));
    await until(() => counts().began === 2);
    conversation.observe(cancel(1));
    expect(await first).toBeUndefined();
    expect(counts().stopped).toBe(1);
    finish();
    expect(JSON.parse((await second) ?? '')).toMatchObject({ id: 2, result: { structuredContent: { done: true } } });
    expect(inFlight.total).toBe(0);
  });

  it('counts among its user’s requests in flight, and is refused above the limit', async () => {
    const { server, finish, counts } = serving();
    const ctx = context();
    const conversation = createRpcDispatcher(server, new InFlight({ perUser: 1 }));
    const first = conversation.answer(ctx, call(1));
    await until(() => counts().began === 1);
    await expect(conversation.answer(ctx, call(2))).rejects.toMatchObject({ code: 'RATE_LIMITED' });
    finish();
    await first;
    expect(JSON.parse((await conversation.answer(ctx, call(3))) ?? '')).toMatchObject({ id: 3 });
  });
});
