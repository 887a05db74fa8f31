import type { MessageContext, RpcDispatcher, RpcMessage, RpcRequest } from '../connections/connection-context.ts';
import { isObject } from '../lib/json.ts';
import type { InFlight } from './in-flight.ts';
import type { McpServer } from './mcp-server.ts';
import { type McpTracingDeps, traceMcp } from './mcp-tracing.ts';

const ENVELOPE_VERSION = 'io.modelcontextprotocol/protocolVersion';
/** Values that a header can contain unchanged. MCP requires Base64 for all others. */
const PLAIN = /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/;
const ENCODED = /^=\?base64\?/;

export interface McpDispatcherDeps extends McpTracingDeps {
  readonly server: Pick<McpServer, 'serve'>;
  readonly inFlight: InFlight;
}

/**
 * Serves MCP on one WebSocket. Each text frame contains one request as in `POST /mcp`. The response is a frame with the
 * id of the request; progress notifications may precede it. The headers that HTTP requires are derived from the
 * message. A notification cancels a request; the end of the socket does not.
 */
export class McpDispatcher implements RpcDispatcher {
  readonly #deps: McpDispatcherDeps;
  readonly #sendFrame: (frame: string) => void;
  /** By request id. Bounded by the requests that a connection may have in flight. */
  readonly #inFlight = new Map<unknown, AbortController>();
  #initialized = false;

  /** @param sendFrame sends a frame that is not a response, such as a notification */
  constructor(deps: McpDispatcherDeps, sendFrame: (frame: string) => void) {
    this.#deps = deps;
    this.#sendFrame = sendFrame;
  }

  /** Handles `ping` only after `initialize`. Before, `ping` is the keepalive of the gateway's own protocol. */
  handles(method: string): boolean {
    return method === 'initialize' || method.includes('/') || (method === 'ping' && this.#initialized);
  }

  observe({ method, params }: RpcMessage): void {
    if (method === 'notifications/cancelled') this.#inFlight.get(params.requestId)?.abort();
  }

  async answer(ctx: MessageContext, message: RpcRequest): Promise<string | undefined> {
    const cancel = new AbortController();
    const leave = this.#deps.inFlight.enter(ctx.identity.userId);
    this.#inFlight.set(message.id, cancel);
    try {
      const { method, params } = message;
      const traced = { method, params, identity: ctx.identity, transportName: 'websocket' } as const;
      return await traceMcp(this.#deps, traced, () => this.#serve(ctx, message, cancel.signal));
    } finally {
      leave();
      if (this.#inFlight.get(message.id) === cancel) this.#inFlight.delete(message.id);
    }
  }

  async #serve(ctx: MessageContext, message: RpcRequest, signal: AbortSignal): Promise<string | undefined> {
    const { connection, identity, limit } = ctx;
    // `tools/call` checks the message limit in the same round trip that begins the call. Other methods wait for the
    // check.
    if (message.method !== 'tools/call') await limit.allowed;
    if (message.method === 'initialize') this.#initialized = true;
    const response = await this.#deps.server.serve({
      request: new Request('http://gateway/mcp', { method: 'POST', headers: headersOf(message), signal }),
      body: { jsonrpc: '2.0', ...message },
      caller: { identity, degraded: connection.degraded, threadId: connection.threadId, limit },
      signalCancels: true,
      notify: (notification) => {
        if (!signal.aborted) this.#sendFrame(JSON.stringify({ jsonrpc: '2.0', ...notification }));
      },
    });
    const frame = await response.text();
    return signal.aborted || frame === '' ? undefined : frame;
  }
}

/** Returns the headers that the message would have over HTTP. The SDK compares them with the message. */
function headersOf({ method, params }: RpcMessage): Record<string, string> {
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  const meta = params._meta;
  const version = isObject(meta) ? meta[ENVELOPE_VERSION] : undefined;
  if (typeof version !== 'string') return headers;
  const name = params.name ?? params.uri;
  return {
    ...headers,
    'mcp-protocol-version': headerValue(version),
    'mcp-method': headerValue(method),
    ...(typeof name === 'string' ? { 'mcp-name': headerValue(name) } : {}),
  };
}

function headerValue(value: string): string {
  if (PLAIN.test(value) && !ENCODED.test(value)) return value;
  return `=?base64?${Buffer.from(value).toString('base64')}?=`;
}
