import {
  createMcpHandler,
  isLegacyRequest,
  type McpHttpHandler,
  ProtocolError,
  type Server,
  type ServerContext,
  SUPPORTED_PROTOCOL_VERSIONS,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server';
import packageFile from '../../package.json' with { type: 'json' };
import { isObject } from '../lib/json.ts';
import { type Logger, userHash } from '../lib/logger.ts';
import type { Tracing } from '../lib/tracing.ts';
import { type TollgateError, toTollgateError } from '../protocol/errors.ts';
import type { Fields } from '../protocol/messages.ts';
import type { RefusalSink } from '../protocol/refusals.ts';
import { acceptedTypes } from './accepted-types.ts';
import { idOf, protocolError } from './mcp-errors.ts';
import { inputExchangeOf } from './mcp-input-requests.ts';
import type { McpResources } from './mcp-resources.ts';
import { callTool, keyOf, listTools, type McpCaller, type McpToolCall, type McpTools } from './mcp-tools.ts';
import { ReadableServer, withRequestId } from './readable-errors.ts';
import type { RequestStates } from './request-states.ts';
import { unwrapSingleEventStream } from './single-event-stream.ts';

/** Supported protocol revisions, newest first. The SDK lists those that start with `initialize`. */
export const MCP_VERSIONS: readonly string[] = ['2026-07-28', ...SUPPORTED_PROTOCOL_VERSIONS];

const SERVER_INFO = { name: 'tollgate', title: 'Tollgate', version: packageFile.version };
/**
 * Time that a client may cache a list; a change of plan appears after at most this time. Private: lists are per caller.
 */
const LIST_TTL_MS = 60_000;
const LIST_HINT = { ttlMs: LIST_TTL_MS, cacheScope: 'private' } as const;
const CACHE_HINTS = {
  'server/discover': LIST_HINT,
  'tools/list': LIST_HINT,
  'resources/list': LIST_HINT,
  'resources/templates/list': LIST_HINT,
  'prompts/list': LIST_HINT,
  // Only the upstream knows how long its content is valid. Its result may contain a hint.
  'resources/read': { ttlMs: 0, cacheScope: 'private' },
} as const;
/** Maximum progress notifications per call. Further ones are dropped; the result is always sent. */
const MAX_PROGRESS = 1_000;
const MAX_PROGRESS_CHARS = 500;
const MAX_PROGRESS_TOKEN_CHARS = 128;
const BOTH_TYPES = 'application/json, text/event-stream';
/** JSON-RPC 2.0 section 5.1. */
const METHOD_NOT_FOUND = -32601;

/** Error statuses that replace the HTTP status of a response, because clients and proxies act on them. */
const STATUS_BEARING: readonly number[] = [429, 503];

export interface McpServerDeps {
  readonly tools: McpTools;
  readonly resources: McpResources;
  readonly states: RequestStates;
  readonly refusals: RefusalSink;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/** Capabilities besides tools, and the protocol era. */
interface ServedCapabilities {
  readonly modern: boolean;
  readonly capabilities: McpResources['capabilities'];
}

/** One request that the SDK processes. */
interface Exchange {
  readonly caller: McpCaller;
  /** Whether an abort of `Request.signal` always means cancellation by the client, never only a lost connection. */
  readonly signalCancels: boolean;
  /** Sends a notification before the response. If undefined, the response is a stream that contains notifications. */
  readonly notify?: (notification: { readonly method: string; readonly params: Fields }) => void;
  /** Whether the response may be a stream. If not, there are no notifications without `notify`. */
  readonly acceptsStream: boolean;
  refusal: TollgateError | undefined;
}

export interface McpRequest extends Pick<Exchange, 'caller' | 'signalCancels' | 'notify'> {
  /** The headers determine the protocol era, not the caller. An abort of the signal ends the exchange. */
  readonly request: Request;
  /** One parsed JSON-RPC message; batches are not supported. */
  readonly body: Readonly<Record<string, unknown>>;
}

/**
 * Answers MCP requests of all transports and both protocol eras: 2026-07-28, where each request is self-contained, and
 * 2025-11-25 and older, where a client initializes first. Keeps no state between requests in either era. Access follows
 * from the identity of the caller, so every node can answer every request.
 */
export class McpServer {
  readonly #tools: McpTools;
  readonly #resources: McpResources;
  readonly #states: RequestStates;
  readonly #refusals: RefusalSink;
  readonly #logger: Logger;
  readonly #tracing: Tracing;
  readonly #modern: McpHttpHandler;
  /** Keyed by the request, which the SDK passes to handlers. The SDK's own channel, `AuthInfo`, requires a token. */
  readonly #exchanges = new WeakMap<Request, Exchange>();

  constructor({ tools, resources, states, refusals, logger, tracing }: McpServerDeps) {
    this.#tools = tools;
    this.#resources = resources;
    this.#states = states;
    this.#refusals = refusals;
    this.#logger = logger;
    this.#tracing = tracing;
    this.#modern = createMcpHandler(({ requestInfo }) => this.#server(requestInfo, true), {
      // The SDK streams every response of the older era, so its HTTP status is sent before the result is known.
      legacy: 'reject',
      onerror: (error) => logger.debug({ err: error }, 'MCP request was not served'),
    });
  }

  /** Never rejects because of client input. Returns status 499 when the request's signal aborted. */
  async serve({ request, body, ...from }: McpRequest): Promise<Response> {
    if (body.method === 'subscriptions/listen') return methodNotFound(body);
    const accepted = acceptedTypes(request.headers.get('accept'));
    // The SDK requires clients to name both types, although a response has only one of them.
    if (accepted.json) request.headers.set('accept', BOTH_TYPES);
    const exchange: Exchange = { ...from, acceptsStream: accepted.eventStream, refusal: undefined };
    this.#exchanges.set(request, exchange);
    const legacy = await isLegacyRequest(request, body);
    const response = legacy
      ? await this.#serveLegacy(exchange, request, body)
      : await this.#modern.fetch(request, { parsedBody: body });
    return exchange.refusal ? withStatus(response, exchange.refusal) : withRequestId(response, body);
  }

  /** Ends the requests in flight. */
  close(): Promise<void> {
    return this.#modern.close();
  }

  async #serveLegacy(exchange: Exchange, request: Request, body: Readonly<Record<string, unknown>>): Promise<Response> {
    const server = this.#server(request, false);
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: undefined,
      enableJsonResponse: !wantsProgress(exchange, body),
    });
    await server.connect(transport);
    const close = () => void server.close();
    try {
      // A closed transport never settles its response, so the signal must end the wait.
      const onClose = ended(request.signal);
      const response = await Promise.race([transport.handleRequest(request, { parsedBody: body }), onClose]);
      return await Promise.race([unwrapSingleEventStream(response, close), onClose]);
    } catch (error) {
      close();
      throw error;
    } finally {
      if (request.signal.aborted) close();
    }
  }

  #server(request: Request | undefined, modern: boolean): Server {
    const exchange = request && this.#exchanges.get(request);
    if (!exchange) throw new Error('MCP request has no exchange');
    // The token of a run is for tools only.
    const isRun = exchange.caller.identity.run !== undefined;
    const capabilities = { tools: {}, ...(isRun ? {} : this.#resources.capabilities) };
    const server = new ReadableServer(SERVER_INFO, { capabilities, cacheHints: CACHE_HINTS });
    this.#handleResources(server, exchange, { modern, capabilities });
    server.setRequestHandler('tools/list', () =>
      this.#answer(exchange, async () => {
        await exchange.caller.limit.allowed;
        return listTools(this.#tools, exchange.caller);
      }),
    );
    server.setRequestHandler('tools/call', ({ params }, context) =>
      this.#answer(exchange, () => {
        const meta: Fields | undefined = params._meta;
        const signal = cancelSignal(exchange, context, modern, keyOf(meta));
        return callTool({ tools: this.#tools, states: this.#states }, exchange.caller, {
          name: params.name,
          args: params.arguments ?? {},
          meta,
          signal,
          onProgress: progressOf(exchange, context, params._meta?.progressToken),
          input: inputExchangeOf(context, modern),
        });
      }),
    );
    return server;
  }

  /** Registers the methods of resources and prompts. Without resources or prompts, their methods do not exist. */
  #handleResources(server: Server, exchange: Exchange, { modern, capabilities }: ServedCapabilities): void {
    const resources = this.#resources;
    const { identity, limit } = exchange.caller;
    const answer = <Result>(work: () => Result | Promise<Result>) =>
      this.#answer(exchange, async () => {
        await limit.allowed;
        return work();
      });
    if (capabilities.resources) {
      server.setRequestHandler('resources/list', () => answer(() => ({ resources: resources.resources(identity) })));
      server.setRequestHandler('resources/templates/list', () => {
        return answer(() => ({ resourceTemplates: resources.templates(identity) }));
      });
      server.setRequestHandler('resources/read', ({ params: { uri } }, context) => {
        const request = { uri, input: inputExchangeOf(context, modern) };
        return answer(() => resources.read(identity, request, context.mcpReq.signal));
      });
    }
    if (capabilities.prompts) {
      server.setRequestHandler('prompts/list', () => answer(() => ({ prompts: resources.prompts(identity) })));
      server.setRequestHandler('prompts/get', ({ params }, context) => {
        const request = { ...params, input: inputExchangeOf(context, modern) };
        return answer(() => resources.prompt(identity, request, context.mcpReq.signal));
      });
    }
    if (capabilities.completions) {
      server.setRequestHandler('completion/complete', ({ params }, { mcpReq }) => {
        return answer(() => resources.complete(identity, params, mcpReq.signal));
      });
    }
  }

  /** Converts every failure to an error of the error table. Of other errors the SDK sends the internal message. */
  async #answer<Result>(exchange: Exchange, work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (thrown) {
      if (thrown instanceof ProtocolError) throw thrown;
      const error = toTollgateError(thrown);
      this.#tracing.failed(error);
      const user = userHash(exchange.caller.identity.userId);
      if (error.code === 'INTERNAL_ERROR') this.#logger.error({ user, err: error.cause }, 'MCP request failed');
      exchange.refusal = error;
      this.#refusals.refused(exchange.caller.identity.userId, error);
      throw protocolError(error);
    }
  }
}

/**
 * Returns the signal that ends the execution of a call. Over HTTP, the newer era treats a closed connection as a
 * cancellation, the older era does not. A call with an idempotency key continues in both: its caller can request the
 * outcome again, and a lost connection must not turn the outcome into a cancellation.
 */
function cancelSignal(
  { signalCancels }: Exchange,
  context: ServerContext,
  modern: boolean,
  key: string | undefined,
): AbortSignal | undefined {
  return signalCancels || (modern && key === undefined) ? context.mcpReq.signal : undefined;
}

/** Returns whether the response must be a stream, because progress precedes the result. */
function wantsProgress(
  { notify, acceptsStream }: Exchange,
  { method, params }: Readonly<Record<string, unknown>>,
): boolean {
  if (notify || !acceptsStream || method !== 'tools/call' || !isObject(params)) return false;
  return isObject(params._meta) && isProgressToken(params._meta.progressToken);
}

/** Ignores overlong tokens, because every progress notification repeats the token. */
function isProgressToken(token: unknown): token is string | number {
  return typeof token === 'number' || (typeof token === 'string' && token.length <= MAX_PROGRESS_TOKEN_CHARS);
}

/** Returns a function that sends progress notifications; undefined if the client cannot receive them. */
function progressOf(
  { notify, acceptsStream }: Exchange,
  { mcpReq }: ServerContext,
  progressToken: string | number | undefined,
): McpToolCall['onProgress'] {
  if (!isProgressToken(progressToken) || !(notify || acceptsStream)) return undefined;
  let sent = 0;
  return ({ progress, total, message }) => {
    sent += 1;
    if (sent > MAX_PROGRESS) return;
    const params = {
      progressToken,
      progress,
      ...(total === undefined ? {} : { total }),
      ...(message === undefined ? {} : { message: message.slice(0, MAX_PROGRESS_CHARS).toWellFormed() }),
    };
    const notification = { method: 'notifications/progress', params } as const;
    if (notify) notify(notification);
    // The caller may have disconnected.
    else mcpReq.notify(notification).catch(() => undefined);
  };
}

/** Returns the response with the HTTP status of its error and `Retry-After`. */
function withStatus(response: Response, { row, retryAfterMs }: TollgateError): Response {
  if (!STATUS_BEARING.includes(row.http) || response.status !== 200) return response;
  const headers = new Headers(response.headers);
  if (retryAfterMs !== undefined) headers.set('retry-after', String(Math.ceil(retryAfterMs / 1000)));
  return new Response(response.body, { status: row.http, headers });
}

/** Rejects `subscriptions/listen`: the capabilities do not include `listChanged`, so there are no notifications. */
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
