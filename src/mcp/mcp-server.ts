import {
  createMcpHandler,
  isLegacyRequest,
  type McpHttpHandler,
  ProtocolError,
  Server,
  type ServerContext,
  SUPPORTED_PROTOCOL_VERSIONS,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server';
import packageFile from '../../package.json' with { type: 'json' };
import { type Logger, userHash } from '../lib/logger.ts';
import type { Tracing } from '../lib/tracing.ts';
import { type TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import { idOf, protocolError } from './mcp-errors.ts';
import { callTool, idempotencyKey, listTools, type McpCaller, type McpTools } from './mcp-tools.ts';

/** Revisions of the protocol that are spoken, the newest first; the SDK lists those that begin with `initialize`. */
export const MCP_VERSIONS: readonly string[] = ['2026-07-28', ...SUPPORTED_PROTOCOL_VERSIONS];

const SERVER_INFO = { name: 'tollgate', title: 'Tollgate', version: packageFile.version };
/** How long a client may show a list without asking again: so late a new plan can be in it. Private: it is the caller's. */
const LIST_TTL_MS = 60_000;
const CACHE_HINTS = {
  'tools/list': { ttlMs: LIST_TTL_MS, cacheScope: 'private' },
  'server/discover': { ttlMs: LIST_TTL_MS, cacheScope: 'private' },
} as const;
/** JSON-RPC 2.0 section 5.1. */
const METHOD_NOT_FOUND = -32601;

/** Errors that the HTTP status tells too, since a client or a proxy can act on it; others are answers like any other. */
const TOLD_BY_STATUS: readonly number[] = [429, 503];

export interface McpServerDeps {
  readonly tools: McpTools;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/** One request on its way through the SDK. */
interface Exchange {
  readonly caller: McpCaller;
  /** Whether the end of `Request.signal` means that the client wants no answer any more, and never just a lost network. */
  readonly signalCancels: boolean;
  refusal: TollgateError | undefined;
}

export interface McpRequest extends Pick<Exchange, 'caller' | 'signalCancels'> {
  /** Its headers say which era is spoken, and nothing of who speaks; its signal ends the exchange. */
  readonly request: Request;
  /** One JSON-RPC message, parsed; no batch. */
  readonly body: Readonly<Record<string, unknown>>;
}

/**
 * Answers MCP requests of both eras, whichever road they came by: 2026-07-28, where every request says everything itself,
 * and 2025-11-25 and older, where a client initializes first. No state is kept between requests in either: what a client
 * may do follows from who it is, so that every node can answer every request.
 */
export class McpServer {
  readonly #tools: McpTools;
  readonly #logger: Logger;
  readonly #tracing: Tracing;
  readonly #modern: McpHttpHandler;
  /** By the request that the SDK hands on: its own channel, `AuthInfo`, would want a token. */
  readonly #exchanges = new WeakMap<Request, Exchange>();

  constructor({ tools, logger, tracing }: McpServerDeps) {
    this.#tools = tools;
    this.#logger = logger;
    this.#tracing = tracing;
    this.#modern = createMcpHandler(({ requestInfo }) => this.#server(requestInfo, true), {
      // Its own serving of the older era streams each answer, whose status is out before anything is known of it.
      legacy: 'reject',
      onerror: (error) => logger.debug({ err: error }, 'an MCP request was not served'),
    });
  }

  /** Never rejects for what the client sent. Status 499 when the request's signal ended it. */
  async serve({ request, body, caller, signalCancels }: McpRequest): Promise<Response> {
    if (body.method === 'subscriptions/listen') return methodNotFound(body);
    const exchange: Exchange = { caller, signalCancels, refusal: undefined };
    this.#exchanges.set(request, exchange);
    const legacy = await isLegacyRequest(request, body);
    const response = legacy
      ? await this.#serveLegacy(request, body)
      : await this.#modern.fetch(request, { parsedBody: body });
    return exchange.refusal ? withStatus(response, exchange.refusal) : response;
  }

  /** Ends what is under way. */
  close(): Promise<void> {
    return this.#modern.close();
  }

  async #serveLegacy(request: Request, body: unknown): Promise<Response> {
    const server = this.#server(request, false);
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: undefined,
      enableJsonResponse: true,
    });
    await server.connect(transport);
    try {
      // A transport that is closed leaves its answer open for ever.
      return await Promise.race([transport.handleRequest(request, { parsedBody: body }), ended(request.signal)]);
    } finally {
      await server.close();
    }
  }

  #server(request: Request | undefined, modern: boolean): Server {
    const exchange = request && this.#exchanges.get(request);
    if (!exchange) throw new Error('an MCP request without its caller');
    const server = new Server(SERVER_INFO, { capabilities: { tools: {} }, cacheHints: CACHE_HINTS });
    server.setRequestHandler('tools/list', () =>
      this.#answer(exchange, async () => {
        await exchange.caller.allowed;
        return listTools(this.#tools, exchange.caller);
      }),
    );
    server.setRequestHandler('tools/call', ({ params }, context) =>
      this.#answer(exchange, () => {
        const meta = metaOf(params);
        const signal = cancelSignal(exchange, context, modern, idempotencyKey(meta));
        return callTool(this.#tools, exchange.caller, {
          name: params.name,
          args: params.arguments ?? {},
          meta,
          signal,
        });
      }),
    );
    return server;
  }

  /** Every failure in the form of the table: the SDK would show the client the text of any other. */
  async #answer<Result>(exchange: Exchange, work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (thrown) {
      if (thrown instanceof ProtocolError) throw thrown;
      const error = toTollgateError(thrown);
      this.#tracing.failed(error);
      const user = userHash(exchange.caller.identity.userId);
      if (error.code === 'INTERNAL_ERROR') this.#logger.error({ user, err: error.cause }, 'an MCP request failed');
      exchange.refusal = error;
      throw protocolError(error);
    }
  }
}

/**
 * What ends a call's execution. Over HTTP the newer era takes a closed connection for a cancellation, the older does not;
 * and a caller that brought a key has said that it comes back for the outcome, which must not be that of a lost network.
 */
function cancelSignal(
  { signalCancels }: Exchange,
  context: ServerContext,
  modern: boolean,
  key: string | undefined,
): AbortSignal | undefined {
  return signalCancels || (modern && key === undefined) ? context.mcpReq.signal : undefined;
}

function metaOf(params: { readonly _meta?: Fields | undefined }): Fields | undefined {
  return params._meta;
}

/** The same answer with the status of its refusal, and when to try again. */
function withStatus(response: Response, { row, retryAfterMs }: TollgateError): Response {
  if (!TOLD_BY_STATUS.includes(row.http) || response.status !== 200) return response;
  const headers = new Headers(response.headers);
  if (retryAfterMs !== undefined) headers.set('retry-after', String(Math.ceil(retryAfterMs / 1000)));
  return new Response(response.body, { status: row.http, headers });
}

/** No change is announced (`listChanged` is not among the capabilities), so that there is nothing to listen to. */
function methodNotFound(body: unknown): Response {
  const error = { code: METHOD_NOT_FOUND, message: 'Method not found' };
  return Response.json({ jsonrpc: '2.0', id: idOf(body), error }, { status: 404 });
}

function ended(signal: AbortSignal): Promise<Response> {
  const response = () => new Response(null, { status: 499 });
  return new Promise((resolve) => {
    if (signal.aborted) resolve(response());
    signal.addEventListener('abort', () => resolve(response()), { once: true });
  });
}
