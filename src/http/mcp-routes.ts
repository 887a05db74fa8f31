import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { newId } from '../lib/ids.ts';
import type { Logger } from '../lib/logger.ts';
import type { Metrics } from '../lib/metrics.ts';
import { consumeMessage, type MessageLimitDeps } from '../limits/message-limit.ts';
import type { InFlight } from '../mcp/in-flight.ts';
import { idOf, rpcErrorBody } from '../mcp/mcp-errors.ts';
import type { McpServer } from '../mcp/mcp-server.ts';
import { type McpTracingDeps, traceMcp } from '../mcp/mcp-tracing.ts';
import { jsonRpcBody } from '../protocol/dialects.ts';
import { TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Identity } from '../protocol/identity.ts';
import { httpError, type InputWatch } from './app.ts';
import { allowOrigins } from './cors.ts';
import { challenge, type ProtectedResource } from './mcp-metadata-routes.ts';

export const MCP_PATH = '/mcp';

/** Headers of the Streamable HTTP transport: all that the SDK gets to see of a request's, and what pages may send. */
const MCP_HEADERS = ['accept', 'content-type', 'mcp-protocol-version', 'mcp-method', 'mcp-name'];
/** JSON-RPC 2.0 section 5.1, for the HTTP methods that this endpoint does not have. */
const METHOD_NOT_FOUND = -32601;

const DOCUMENTED = {
  tags: ['mcp'],
  summary: 'The Model Context Protocol (Streamable HTTP, 2026-07-28 and 2025-11-25): one JSON-RPC message a request.',
  security: [{ user: [] }],
  response: { 200: z.object({ jsonrpc: z.literal('2.0'), id: z.union([z.string(), z.int(), z.null()]) }) },
};

export interface McpRoutesDeps extends MessageLimitDeps, McpTracingDeps {
  readonly server: Pick<McpServer, 'serve'>;
  readonly inFlight: InFlight;
  /** Who speaks, by an access token and as operators have decided. @throws TollgateError of the authentication rows */
  readonly identify: (request: FastifyRequest) => Promise<Identity>;
  readonly resource: ProtectedResource;
  readonly allowedOrigins: readonly string[];
  readonly originAllowed: (origin: string | undefined, allowed: readonly string[]) => boolean;
  /** How long clients should wait before they try another node; undefined while this one takes requests. */
  readonly drainingForMs: () => number | undefined;
  readonly watch: Pick<InputWatch, 'run'>;
  readonly metrics: Pick<Metrics, 'limitDecisions' | 'messages'>;
  readonly logger: Logger;
}

/**
 * `POST /mcp`. Origin, draining and credential are settled before the body is looked at; every answer, refusals
 * included, is JSON-RPC. The access token ends here: what is behind gets an identity.
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
      if (!deps.originAllowed(request.headers.origin, deps.allowedOrigins)) {
        throw new TollgateError('ORIGIN_NOT_ALLOWED');
      }
      const retryAfterMs = deps.drainingForMs();
      if (retryAfterMs !== undefined) throw new TollgateError('SERVER_DRAINING', { retryAfterMs });
      identities.set(request, await deps.identify(request));
    });
    scope.options(MCP_PATH, { schema: { hide: true } }, (_request, reply) => reply.status(204).send());
    // Neither a stream of its own (2025-11-25) nor a session to end: there is no state between requests.
    scope.route({
      method: ['GET', 'DELETE'],
      url: MCP_PATH,
      schema: { hide: true },
      handler: (_request, reply) => {
        const error = { code: METHOD_NOT_FOUND, message: 'Method not allowed: send a POST.' };
        return reply.status(405).header('allow', 'POST').send({ jsonrpc: '2.0', id: null, error });
      },
    });
    scope.post(MCP_PATH, { schema: DOCUMENTED }, async (request, reply) => {
      const identity = identities.get(request);
      if (!identity) throw new Error('the route has no guard');
      try {
        const { method, params } = messageOf(request);
        const { traceparent } = request.headers;
        const traced = { method, params, traceparent, identity, transportName: 'http' } as const;
        return await traceMcp(deps, traced, () => answer(deps, identity, request, reply));
      } catch (thrown) {
        deps.metrics.messages.inc({ type: 'mcp', result: toTollgateError(thrown).code });
        throw thrown;
      }
    });
  });
}

/** @throws TollgateError INVALID_MESSAGE without a body: then no content type was asked for, and nothing parsed */
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
  // Also after the last byte of the answer: then nothing is left that could be ended.
  reply.raw.once('close', end);
  // A client that hung up before, while its token was looked at, is not told of again.
  if (reply.raw.destroyed) end();
  const allowed = consumeMessage(deps, identity);
  await allowed;
  deps.metrics.messages.inc({ type: 'mcp', result: 'ok' });
  const response = await deps.server.serve({
    request: new Request('http://gateway/mcp', {
      method: 'POST',
      headers: mcpHeaders(request),
      signal: onClose.signal,
    }),
    body: request.body as Readonly<Record<string, unknown>>,
    caller: { identity, degraded: false, threadId: newId('thread'), allowed },
    signalCancels: false,
  });
  return reply.header('cache-control', 'no-store').send(response);
}

/** Every refusal as JSON-RPC, with the request's id once the body has been read. */
function refuse(deps: McpRoutesDeps, thrown: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = httpError(thrown);
  if (error.code === 'INTERNAL_ERROR') deps.logger.error({ err: thrown }, 'an MCP request failed');
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
