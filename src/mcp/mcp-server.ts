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
import { inputExchangeOf } from './mcp-input-requests.ts';
import type { McpResources } from './mcp-resources.ts';
import { callTool, keyOf, listTools, type McpCaller, type McpToolCall, type McpTools } from './mcp-tools.ts';
import type { RequestStates } from './request-states.ts';
import { unwrapSingleEventStream } from './single-event-stream.ts';

/** Revisions of the protocol that are spoken, the newest first; the SDK lists those that begin with `initialize`. */
export const MCP_VERSIONS: readonly string[] = ['2026-07-28', ...SUPPORTED_PROTOCOL_VERSIONS];

const SERVER_INFO = { name: 'tollgate', title: 'Tollgate', version: packageFile.version };
/** How long a client may show a list without asking again: so late a new plan can be in it. Private: it is the caller's. */
const LIST_TTL_MS = 60_000;
const LIST_HINT = { ttlMs: LIST_TTL_MS, cacheScope: 'private' } as const;
const CACHE_HINTS = {
  'server/discover': LIST_HINT,
  'tools/list': LIST_HINT,
  'resources/list': LIST_HINT,
  'resources/templates/list': LIST_HINT,
  'prompts/list': LIST_HINT,
  // How long an upstream's words hold is the upstream's to know, which may say so in the result.
  'resources/read': { ttlMs: 0, cacheScope: 'private' },
} as const;
/** Of one call; what a tool reports beyond that is dropped, the result is not. */
const MAX_PROGRESS = 1_000;
const MAX_PROGRESS_CHARS = 500;
const MAX_PROGRESS_TOKEN_CHARS = 128;
/** JSON-RPC 2.0 section 5.1. */
const METHOD_NOT_FOUND = -32601;

/** Errors that the HTTP status tells too, since a client or a proxy can act on it; others are answers like any other. */
const STATUS_BEARING: readonly number[] = [429, 503];

export interface McpServerDeps {
  readonly tools: McpTools;
  readonly resources: McpResources;
  readonly states: RequestStates;
  readonly logger: Logger;
  readonly tracing: Tracing;
}

/** What is offered besides tools, and in which era. */
interface ServedCapabilities {
  readonly modern: boolean;
  readonly capabilities: McpResources['capabilities'];
}

/** One request on its way through the SDK. */
interface Exchange {
  readonly caller: McpCaller;
  /** Whether the end of `Request.signal` means that the client wants no answer any more, and never just a lost network. */
  readonly signalCancels: boolean;
  /** Tells the client something before its answer; where it is undefined, the answer is a stream that does. */
  readonly notify?: (notification: { readonly method: string; readonly params: Fields }) => void;
  refusal: TollgateError | undefined;
}

export interface McpRequest extends Pick<Exchange, 'caller' | 'signalCancels' | 'notify'> {
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
  readonly #resources: McpResources;
  readonly #states: RequestStates;
  readonly #logger: Logger;
  readonly #tracing: Tracing;
  readonly #modern: McpHttpHandler;
  /** By the request that the SDK hands on: its own channel, `AuthInfo`, would want a token. */
  readonly #exchanges = new WeakMap<Request, Exchange>();

  constructor({ tools, resources, states, logger, tracing }: McpServerDeps) {
    this.#tools = tools;
    this.#resources = resources;
    this.#states = states;
    this.#logger = logger;
    this.#tracing = tracing;
    this.#modern = createMcpHandler(({ requestInfo }) => this.#server(requestInfo, true), {
      // Its own serving of the older era streams each answer, whose status is out before anything is known of it.
      legacy: 'reject',
      onerror: (error) => logger.debug({ err: error }, 'an MCP request was not served'),
    });
  }

  /** Never rejects for what the client sent. Status 499 when the request's signal ended it. */
  async serve({ request, body, ...from }: McpRequest): Promise<Response> {
    if (body.method === 'subscriptions/listen') return methodNotFound(body);
    const exchange: Exchange = { ...from, refusal: undefined };
    this.#exchanges.set(request, exchange);
    const legacy = await isLegacyRequest(request, body);
    const response = legacy
      ? await this.#serveLegacy(exchange, request, body)
      : await this.#modern.fetch(request, { parsedBody: body });
    return exchange.refusal ? withStatus(response, exchange.refusal) : response;
  }

  /** Ends what is under way. */
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
      // A transport that is closed leaves its answer open for ever.
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
    if (!exchange) throw new Error('an MCP request without its caller');
    const capabilities = { tools: {}, ...this.#resources.capabilities };
    const server = new Server(SERVER_INFO, { capabilities, cacheHints: CACHE_HINTS });
    this.#handleResources(server, exchange, { modern, capabilities });
    server.setRequestHandler('tools/list', () =>
      this.#answer(exchange, async () => {
        await exchange.caller.allowed;
        return listTools(this.#tools, exchange.caller);
      }),
    );
    server.setRequestHandler('tools/call', ({ params }, context) =>
      this.#answer(exchange, () => {
        const meta = metaOf(params);
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

  /** Resources and prompts, where there are any: what there is none of is no method of this server. */
  #handleResources(server: Server, exchange: Exchange, { modern, capabilities }: ServedCapabilities): void {
    const resources = this.#resources;
    const { identity, allowed } = exchange.caller;
    const answer = <Result>(work: () => Result | Promise<Result>) =>
      this.#answer(exchange, async () => {
        await allowed;
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

/** Whether the answer must be a stream, for the progress before it. */
function wantsProgress({ notify }: Exchange, { method, params }: Readonly<Record<string, unknown>>): boolean {
  if (notify || method !== 'tools/call' || typeof params !== 'object' || params === null) return false;
  const meta: unknown = Reflect.get(params, '_meta');
  return typeof meta === 'object' && meta !== null && isProgressToken(Reflect.get(meta, 'progressToken'));
}

/** One that is longer than any that is made asks for nothing: it stands in every word about the progress. */
function isProgressToken(token: unknown): token is string | number {
  return typeof token === 'number' || (typeof token === 'string' && token.length <= MAX_PROGRESS_TOKEN_CHARS);
}

/** Passes on how far a tool has come, to who gave a token for that. */
function progressOf(
  { notify }: Exchange,
  { mcpReq }: ServerContext,
  progressToken: string | number | undefined,
): McpToolCall['onProgress'] {
  if (!isProgressToken(progressToken)) return undefined;
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
    // A caller that has gone is not told of it.
    else mcpReq.notify(notification).catch(() => undefined);
  };
}

function metaOf(params: { readonly _meta?: Fields | undefined }): Fields | undefined {
  return params._meta;
}

/** The same answer with the status of its refusal, and when to try again. */
function withStatus(response: Response, { row, retryAfterMs }: TollgateError): Response {
  if (!STATUS_BEARING.includes(row.http) || response.status !== 200) return response;
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
