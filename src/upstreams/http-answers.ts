import type { RequestId } from '@modelcontextprotocol/client';
import { isObject, parseJson } from '../lib/json.ts';
import { parseRetryAfter } from '../lib/retry-after.ts';
import { RateLimited, SessionLost, UnusableResult, UpstreamRefusal } from './faults.ts';
import { MAX_HOLD_MS } from './holds.ts';
import { type Json, withoutNulls } from './rows.ts';

/** The JSON-RPC request in the body of an HTTP request. */
export interface PostedRequest {
  readonly id: RequestId;
  readonly method: string;
  /** Whether the HTTP request carries a session id. */
  readonly inSession: boolean;
}

/** Statuses by which a server refuses a request itself. Others without JSON-RPC are failures of the server. */
const REFUSALS: ReadonlySet<number> = new Set([400, 401, 403, 409, 413, 415, 422, 429]);
/** Requests of the negotiation, whose HTTP errors the SDK interprets. */
const NEGOTIATION: ReadonlySet<string> = new Set(['initialize', 'server/discover']);
/** JSON-RPC codes with which servers report an unknown session in HTTP 200. */
const SESSION_CODES: ReadonlySet<number> = new Set([-32000, -32001, -32002, -32004, -32600, -32602]);
const MAX_SESSION_TEXT = 500;

/** Returns the request of a POST; undefined for notifications and other messages without a response. */
export function postedRequest({ method, body }: RequestInit, headers: Headers): PostedRequest | undefined {
  const message = method === 'POST' && typeof body === 'string' ? parseJson(body) : undefined;
  if (!isObject(message) || typeof message.method !== 'string') return undefined;
  const { id } = message;
  if (typeof id !== 'string' && typeof id !== 'number') return undefined;
  return { id, method: message.method, inSession: headers.has('mcp-session-id') };
}

/**
 * Reads the answer to a request where the SDK would treat it as a failure of the server: an HTTP error whose body is a
 * JSON-RPC error, and a JSON-RPC error without the id of its request. Returns the answer for the SDK.
 * @throws SessionLost, RateLimited, UnusableResult, UpstreamRefusal
 */
export async function readAnswer(response: Response, request: PostedRequest): Promise<Response> {
  if (NEGOTIATION.has(request.method)) return readNegotiation(response, request);
  if (response.ok) return isJson(response) ? withId(response, await response.text(), request) : response;
  const text = await response.text();
  const error = rpcErrorOf(parseJson(text));
  const words = error ? String(error.message ?? '') : text;
  if (isSessionLost(response.status, words, request)) throw new SessionLost(true);
  const { status } = response;
  const retryAfterMs = retryAfterOf(response.headers);
  if (status === 429 || (status === 503 && retryAfterMs !== undefined)) {
    throw new RateLimited(error ? 'user' : 'server', retryAfterMs, error && words);
  }
  if (error) return jsonResponse({ jsonrpc: '2.0', id: request.id, error });
  if (REFUSALS.has(status)) throw new UpstreamRefusal(0, `The tool's server refused the request (HTTP ${status}).`);
  return new Response(text, { status, statusText: response.statusText, headers: response.headers });
}

/**
 * Returns whether a JSON-RPC error in HTTP 200 says that the session is unknown. Its words are all there is: servers
 * use different codes for it.
 */
export function saysSessionLost({ code, message }: UpstreamRefusal): boolean {
  return SESSION_CODES.has(code) && namesLostSession(message);
}

/** An answer that is none, so that negotiation continues at once and not after its timeout. */
async function readNegotiation(response: Response, { method, id }: PostedRequest): Promise<Response> {
  if (response.status === 202 || response.status === 204) throw new Error(`HTTP ${response.status} without an answer`);
  if (!response.ok || !isJson(response)) return response;
  return withId(response, await response.text(), { method, id });
}

/** Returns the answer with the id of its request and the members that JSON-RPC 2.0 requires, if it lacks them. */
function withId(response: Response, text: string, { id }: Pick<PostedRequest, 'id' | 'method'>): Response {
  const body = parseJson(text);
  const message = Array.isArray(body) && body.length === 1 ? body[0] : body;
  if (isObject(message) && !('method' in message)) {
    const error = rpcErrorOf(message);
    if (error) return jsonResponse({ jsonrpc: '2.0', id, error });
    const { result } = message;
    if ('result' in message && !isObject(result))
      throw new UnusableResult('The result of the server is not an object.');
    const isComplete = message.jsonrpc === '2.0' && message.id === id && !('error' in message);
    if (isObject(result) && !(isComplete && result._meta !== null)) {
      return jsonResponse({ jsonrpc: '2.0', id, result: withoutNulls(result, ['nextCursor']) });
    }
  }
  return new Response(text, { status: response.status, statusText: response.statusText, headers: response.headers });
}

function isSessionLost(status: number, words: string, { inSession }: PostedRequest): boolean {
  // MCP 2025-11-25, Streamable HTTP, session management: 404 to a request with a session id.
  if (status === 404 && inSession) return true;
  return status >= 400 && namesLostSession(words);
}

function namesLostSession(words: string): boolean {
  if (words.length > MAX_SESSION_TEXT) return false;
  const text = words.toLowerCase();
  if (/not (yet )?initiali[sz]ed|before initiali[sz]ation/.test(text)) return true;
  return (
    text.includes('session') &&
    /not found|expired|invalid|unknown|terminated|closed|missing|no valid|no active|not exist|no longer/.test(text)
  );
}

function rpcErrorOf(body: unknown): Json | undefined {
  if (!isObject(body) || !isObject(body.error)) return undefined;
  const { code, message: words, data } = body.error;
  if (typeof code !== 'number' || !Number.isSafeInteger(code)) return undefined;
  const text = typeof words === 'string' ? words : 'The server gave no reason.';
  return data === undefined ? { code, message: text } : { code, message: text, data };
}

function retryAfterOf(headers: Headers): number | undefined {
  return parseRetryAfter(headers.get('retry-after'), Date.now(), MAX_HOLD_MS);
}

function isJson({ headers }: Response): boolean {
  return (headers.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase() === 'application/json';
}

function jsonResponse(message: Json): Response {
  return new Response(JSON.stringify(message), { headers: { 'content-type': 'application/json' } });
}
