import type { ConnectionContext } from '../connections/handlers.ts';
import type { RpcDispatcher, RpcMessage, RpcRequest } from '../connections/rpc-dispatcher.ts';
import type { InFlight } from './in-flight.ts';
import type { McpServer } from './mcp-server.ts';
import { type McpTracingDeps, traceMcp } from './mcp-tracing.ts';

const ENVELOPE_VERSION = 'io.modelcontextprotocol/protocolVersion';
/** What a header's value may hold as it is; the rest goes as the specification has it, in Base64. */
const PLAIN = /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/;
const ENCODED = /^=\?base64\?/;

export interface McpDispatcherDeps extends McpTracingDeps {
  readonly server: Pick<McpServer, 'serve'>;
  readonly inFlight: InFlight;
}

/**
 * MCP on one WebSocket: the requests of `POST /mcp`, one object a text frame, each answered by a frame with its id, with
 * notifications of how far it has come before that. What
 * stands in headers there follows from the message here; a request is cancelled by notification, not by the socket's end.
 */
export class McpDispatcher implements RpcDispatcher {
  readonly #deps: McpDispatcherDeps;
  readonly #ctx: ConnectionContext;
  readonly #sendFrame: (frame: string) => void;
  /** By the id of the request; as many as the connection may have under way. */
  readonly #inFlight = new Map<unknown, AbortController>();
  #initialized = false;

  /** @param sendFrame sends a frame that is no answer */
  constructor(deps: McpDispatcherDeps, ctx: ConnectionContext, sendFrame: (frame: string) => void) {
    this.#deps = deps;
    this.#ctx = ctx;
    this.#sendFrame = sendFrame;
  }

  /** `ping` is MCP's for clients that have initialized; before, it is the keep-alive with an answer of our own. */
  handles(method: string): boolean {
    return method === 'initialize' || method.includes('/') || (method === 'ping' && this.#initialized);
  }

  observe({ method, params }: RpcMessage): void {
    if (method === 'notifications/cancelled') this.#inFlight.get(params.requestId)?.abort();
  }

  async answer(message: RpcRequest, allowed: Promise<void>): Promise<string | undefined> {
    const cancel = new AbortController();
    const leave = this.#deps.inFlight.enter(this.#ctx.identity.userId);
    this.#inFlight.set(message.id, cancel);
    try {
      const { method, params } = message;
      const traced = { method, params, identity: this.#ctx.identity, transportName: 'websocket' } as const;
      return await traceMcp(this.#deps, traced, () => this.#serve(message, allowed, cancel.signal));
    } finally {
      leave();
      if (this.#inFlight.get(message.id) === cancel) this.#inFlight.delete(message.id);
    }
  }

  async #serve(message: RpcRequest, allowed: Promise<void>, signal: AbortSignal): Promise<string | undefined> {
    // A call begins in the same flight as the question whether it may; nothing else has effects to hold back.
    if (message.method !== 'tools/call') await allowed;
    if (message.method === 'initialize') this.#initialized = true;
    const { identity, degraded, threadId } = this.#ctx;
    const response = await this.#deps.server.serve({
      request: new Request('http://gateway/mcp', { method: 'POST', headers: headersOf(message), signal }),
      body: { jsonrpc: '2.0', ...message },
      caller: { identity, degraded, threadId, allowed },
      signalCancels: true,
      notify: (notification) => {
        if (!signal.aborted) this.#sendFrame(JSON.stringify({ jsonrpc: '2.0', ...notification }));
      },
    });
    const frame = await response.text();
    return signal.aborted || frame === '' ? undefined : frame;
  }
}

/** The headers that the message would have over HTTP: the SDK holds them against the message. */
function headersOf({ method, params }: RpcMessage): Record<string, string> {
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  const meta = params._meta;
  const version = typeof meta === 'object' && meta !== null ? Reflect.get(meta, ENVELOPE_VERSION) : undefined;
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
