import { randomBytes } from 'node:crypto';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Client as LegacyClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as LegacyHttpTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import { type Clock, systemClock } from '../../src/lib/clock.ts';
import { RequestStates } from '../../src/mcp/request-states.ts';
import { INPUT_TTL_MS } from '../../src/tools/call-store.ts';
import { nodeUrl } from './nodes.ts';
import { closeAfter } from './open-resources.ts';
import { buyTicket } from './tickets.ts';

type Json = Readonly<Record<string, unknown>>;

/** Request states sealed with a key that no other test has. */
export function requestStates(clock: Clock = systemClock): RequestStates {
  return new RequestStates({ clock }, { secret: randomBytes(32).toString('hex'), keptMs: INPUT_TTL_MS });
}

export const MODERN = '2026-07-28';
export const LEGACY = '2025-11-25';
const INFO = { name: 'tollgate-tests', version: '1' };

export interface McpAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: {
    readonly id?: unknown;
    // biome-ignore lint/suspicious/noExplicitAny: answers of the server, whose every member a test names.
    readonly result?: any;
    // biome-ignore lint/suspicious/noExplicitAny: as above.
    readonly error?: any;
  };
}

export interface McpPost {
  readonly url?: string;
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string | undefined>>;
  readonly signal?: AbortSignal;
}

/** Posts a body unchanged, with the headers that every MCP client sends. */
export async function postMcp(body: unknown, { url = nodeUrl(0), token, headers, signal }: McpPost = {}) {
  const all = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    authorization: token === undefined ? undefined : `Bearer ${token}`,
    ...headers,
  };
  const given = Object.entries(all).filter((header): header is [string, string] => header[1] !== undefined);
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const response = await fetch(new URL('/mcp', url), {
    method: 'POST',
    headers: given,
    body: text,
    signal: signal ?? null,
  });
  const answer = await response.text();
  return { status: response.status, headers: response.headers, body: answer ? JSON.parse(answer) : {} } as McpAnswer;
}

/** Returns a request of 2026-07-28, which is self-contained. */
export function modernRequest(method: string, params: Json = {}, id: unknown = randomBytes(4).toString('hex')) {
  const _meta = {
    'io.modelcontextprotocol/protocolVersion': MODERN,
    'io.modelcontextprotocol/clientInfo': INFO,
    'io.modelcontextprotocol/clientCapabilities': {},
    ...(params._meta as Json | undefined),
  };
  return { jsonrpc: '2.0', id, method, params: { ...params, _meta } };
}

/** Sends a request of 2026-07-28 with its required headers. */
export function requestModern(
  method: string,
  params: Json,
  post: McpPost & { readonly id?: unknown },
): Promise<McpAnswer> {
  const named = typeof params.name === 'string' ? { 'mcp-name': params.name } : {};
  const headers = { 'mcp-protocol-version': MODERN, 'mcp-method': method, ...named, ...post.headers };
  return postMcp(modernRequest(method, params, post.id), { ...post, headers });
}

/** Sends a request like an initialized client of 2025-11-25. */
export function requestLegacy(
  method: string,
  params: Json,
  post: McpPost & { readonly id?: unknown },
): Promise<McpAnswer> {
  const headers = { 'mcp-protocol-version': LEGACY, ...post.headers };
  return postMcp({ jsonrpc: '2.0', id: post.id ?? 1, method, params }, { ...post, headers });
}

/** The current client of the SDK, which starts with `server/discover` and falls back to `initialize`. */
export async function modernClient(token: string, mode: 'auto' | 'legacy' = 'auto', url = nodeUrl(0)): Promise<Client> {
  const client = new Client(INFO, { versionNegotiation: { mode } });
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  await client.connect(new StreamableHTTPClientTransport(new URL('/mcp', url), { requestInit }));
  closeAfter('test', () => client.close());
  return client;
}

/** The previous client of the SDK, which most programs use today. */
export async function legacyClient(
  token: string,
  transportName: 'http' | 'websocket',
  url = nodeUrl(0),
): Promise<LegacyClient> {
  const client = new LegacyClient(INFO);
  const transport = transportName === 'http' ? httpTransport(token, url) : await webSocketTransport(token, url);
  await client.connect(transport);
  closeAfter('test', () => client.close());
  return client;
}

function httpTransport(token: string, url: string) {
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  return new LegacyHttpTransport(new URL('/mcp', url), { requestInit });
}

/** This transport cannot send headers, so a ticket in the URL authenticates. */
async function webSocketTransport(token: string, url: string) {
  const address = new URL('/ws/mcp', url.replace(/^http/, 'ws'));
  address.searchParams.set('ticket', await buyTicket(token, { url }));
  return new WebSocketClientTransport(address);
}
