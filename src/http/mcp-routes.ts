import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { newId } from '../lib/ids.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { countMessage, type MessageLimit, type MessageLimitDeps, NO_MESSAGE_LIMIT } from '../limits/message-limit.ts';
import type { InFlight } from '../mcp/in-flight.ts';
import { idOf, rpcErrorBody } from '../mcp/mcp-errors.ts';
import type { McpServer } from '../mcp/mcp-server.ts';
import { type McpTracingDeps, traceMcp } from '../mcp/mcp-tracing.ts';
import { jsonRpcBody } from '../protocol/dialects.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import { httpError, type InputWatch } from './app.ts';
import { allowOrigins, type OriginCheck } from './cors.ts';
import { challenge, type ProtectedResource } from './mcp-metadata-routes.ts';
import { BODY_ERRORS, typedRoutes, USER_ERRORS, USER_TOKEN } from './route-docs.ts';

export const MCP_PATH = '/mcp';

/** Headers of the Streamable HTTP transport: the only ones that the SDK receives, and those that pages can send. */
const MCP_HEADERS = ['accept', 'content-type', 'mcp-protocol-version', 'mcp-method', 'mcp-name'];
/** JSON-RPC 2.0 section 5.1, sent for HTTP methods that this endpoint does not support. */
const METHOD_NOT_FOUND = -32601;

/** Documents the body. It accepts every value, because the MCP server validates messages by the rules of JSON-RPC. */
const Message = z.unknown().meta({
  id: 'JsonRpcMessage',
  type: 'object',
  required: ['jsonrpc', 'method'],
  properties: {
    jsonrpc: { const: '2.0' },
    id: { type: ['string', 'integer'], description: 'Absent in notifications.' },
    method: { type: 'string' },
    params: { type: 'object' },
  },
  examples: [{ jsonrpc: '2.0', id: 1, method: 'tools/list', params: {} }],
});
const Result = z.unknown().meta({
  id: 'JsonRpcResult',
  type: 'object',
  required: ['jsonrpc'],
  properties: {
    jsonrpc: { const: '2.0' },
    id: { type: ['string', 'integer'], description: 'Absent in errors that answer no request.' },
    result: { type: 'object' },
    error: { type: 'object', description: 'Instead of `result`: an error of JSON-RPC, MCP or a tool.' },
  },
  examples: [{ jsonrpc: '2.0', id: 1, result: { tools: [] } }],
});
const Events = z.unknown().meta({
  type: 'string',
  examples: ['event: message\ndata: {"jsonrpc":"2.0","id":1,"result":{"tools":[]}}\n\n'],
});

const DOCUMENTED = {
  operationId: 'sendMcpMessage',
  summary: 'Send an MCP message',
  description: `Endpoint of the Model Context Protocol (Streamable HTTP, versions 2026-07-28 and 2025-11-25). The body
is one JSON-RPC message. Errors of the gateway, authentication included, are JSON-RPC errors with the listed HTTP
status.`,
  tags: ['mcp'],
  security: USER_TOKEN,
  body: Message,
  'x-rpc-errors': [
    ...USER_ERRORS,
    ...BODY_ERRORS,
    'INVALID_MESSAGE',
    'ORIGIN_NOT_ALLOWED',
    'USER_BLOCKED',
    'RATE_LIMITED',
    'SERVER_DRAINING',
  ],
  response: {
    200: {
      description: 'The result: as JSON, or as server-sent events if notifications precede it.',
      content: { 'application/json': { schema: Result }, 'text/event-stream': { schema: Events } },
    },
    202: z.null().describe('The notification was accepted; there is no body.'),
  },
} as const;

export interface McpRoutesDeps extends MessageLimitDeps, McpTracingDeps {
  readonly server: Pick<McpServer, 'serve'>;
  readonly inFlight: InFlight;
  /** The user of the access token, with the stored account applied. @throws TollgateError of the authentication rows */
  readonly identify: (request: FastifyRequest) => Promise<Identity>;
  readonly resource: ProtectedResource;
  readonly allowedOrigins: readonly string[];
  readonly origins: OriginCheck;
  /** Milliseconds after which clients should try another node; undefined while this node serves requests. */
  readonly drainRetryMs: () => number | undefined;
  readonly watch: Pick<InputWatch, 'run'>;
  readonly metrics: Pick<Metrics, 'limitDecisions' | 'messages'>;
  readonly refusals: RefusalSink;
  readonly logger: Logger;
}

/**
 * `POST /mcp`. Checks origin, draining and credential before it reads the body. All responses, including errors, are
 * JSON-RPC. The MCP server receives the identity of the user, never the access token.
 */
export function registerMcpRoutes(app: FastifyInstance, deps: McpRoutesDeps): void {
  const identities = new WeakMap<FastifyRequest, Identity>();
  app.register(async (scope) => {
    allowOrigins(scope, deps.allowedOrigins, MCP_HEADERS);
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser(
      'application/json',
      { parseAs: 'string' },
      async (request: FastifyRequest, body: string) =>
        deps.watch.run('http_body', request.raw, () => jsonRpcBody(body)),
    );
    scope.setErrorHandler((thrown: FastifyError, request, reply) => refuse(deps, thrown, request, reply));
    scope.addHook('onRequest', async (request) => {
      if (!deps.origins.allow(request.raw)) {
        throw new TollgateError('ORIGIN_NOT_ALLOWED');
      }
      const retryAfterMs = deps.drainRetryMs();
      if (retryAfterMs !== undefined) throw new TollgateError('SERVER_DRAINING', { retryAfterMs });
      identities.set(request, await deps.identify(request));
    });
    scope.options(MCP_PATH, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    // The server keeps no state between requests: there is no stream to open (2025-11-25) and no session to end.
    scope.route({
      method: ['GET', 'DELETE'],
      url: MCP_PATH,
      schema: { hide: true },
      handler: (_request, reply) => {
        const error = { code: METHOD_NOT_FOUND, message: 'Method not allowed: send a POST.' };
        return reply.status(405).header('allow', 'POST').send({ jsonrpc: '2.0', error });
      },
    });
    typedRoutes(scope).post(MCP_PATH, { schema: DOCUMENTED }, async (request, reply) => {
      const identity = identities.get(request);
      if (!identity) throw new Error('the route has no guard');
      try {
        const { method, params } = messageOf(request);
        const { traceparent } = request.headers;
        const traced = { method, params, traceparent, identity, transportName: 'http' } as const;
        return await traceMcp(deps, traced, () => answer(deps, identity, request, reply));
      } catch (thrown) {
        const error = toTollgateError(thrown);
        deps.metrics.messages.inc({ type: 'mcp', result: error.code });
        deps.refusals.refused(identity.userId, error);
        throw thrown;
      }
    });
  });
}

/** @throws TollgateError INVALID_MESSAGE without a body: Fastify then neither checks the content type nor parses */
function messageOf({ body }: FastifyRequest): { readonly method?: unknown; readonly params?: unknown } {
  if (typeof body === 'object' && body !== null) return body;
  throw new TollgateError('INVALID_MESSAGE', { text: 'The body must be one JSON-RPC message.' });
}

async function answer(
  deps: McpRoutesDeps,
  identity: Identity,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const leave = deps.inFlight.enter(identity.userId);
  const onClose = new AbortController();
  const end = () => {
    leave();
    onClose.abort();
  };
  // Also emitted after a complete response; aborting has no effect then.
  reply.raw.once('close', end);
  // If the client disconnected during authentication, `close` is not emitted again.
  if (reply.raw.destroyed) end();
  const limit = limitOf(deps, identity);
  await limit.allowed;
  deps.metrics.messages.inc({ type: 'mcp', result: 'ok' });
  const response = await deps.server.serve({
    request: new Request('http://gateway/mcp', {
      method: 'POST',
      headers: mcpHeaders(request),
      signal: onClose.signal,
    }),
    body: request.body as Readonly<Record<string, unknown>>,
    caller: { identity, degraded: false, threadId: newId('thread'), limit },
    signalCancels: false,
  });
  return reply.header('cache-control', 'no-store').send(response);
}

/** The calls of an agent count for its run, so that they do not use up the messages of the user. */
function limitOf(deps: McpRoutesDeps, identity: Identity): MessageLimit {
  if (!identity.run) return countMessage(deps, identity);
  const { allowed } = countMessage(deps, { ...identity, userId: identity.run.runId });
  return { ...NO_MESSAGE_LIMIT, allowed };
}

/** Sends an error as JSON-RPC, with the id of the request if its body has been read. */
function refuse(deps: McpRoutesDeps, thrown: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = httpError(thrown);
  if (error.code === 'INTERNAL_ERROR') deps.logger.error({ err: thrown }, 'MCP request failed');
  if (error.retryAfterMs !== undefined) reply.header('retry-after', Math.ceil(error.retryAfterMs / 1000));
  if (error.row.http === 401) reply.header('www-authenticate', challenge(error, deps.resource.metadataUrl(request)));
  return reply.status(error.row.http).send(rpcErrorBody(idOf(request.body), error));
}

function mcpHeaders({ headers }: FastifyRequest): [string, string][] {
  return MCP_HEADERS.flatMap((name): [string, string][] => {
    const value = headers[name];
    return typeof value === 'string' ? [[name, value]] : [];
  });
}
