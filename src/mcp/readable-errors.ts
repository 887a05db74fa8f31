import {
  isJSONRPCErrorResponse,
  type JSONRPCMessage,
  ProtocolErrorCode,
  Server,
  type Transport,
} from '@modelcontextprotocol/server';
import { isObject } from '../lib/json.ts';
import { idOf } from './mcp-errors.ts';

/** Maximum number of problems in the message of an error. */
const MAX_PROBLEMS = 5;
/** A longer list of problems is not parsed: 4096 values can cause 500 KB of problems. */
const MAX_LIST_LENGTH = 16_384;
/** Maximum length of one problem in the message of an error. It can contain names that the client chose. */
const MAX_LENGTH = 200;

/**
 * A server that describes malformed parameters in words. The SDK sends the list of problems as JSON in the message, and
 * for some methods with the code of an internal error.
 */
export class ReadableServer extends Server {
  override connect(transport: Transport): Promise<void> {
    const send = transport.send.bind(transport);
    transport.send = (message, options) => send(inWords(message), options);
    return super.connect(transport);
  }
}

function inWords(message: JSONRPCMessage): JSONRPCMessage {
  if (!isJSONRPCErrorResponse(message)) return message;
  const { error } = message;
  const start = error.message.indexOf('[');
  const problems = start < 0 ? undefined : problemsOf(error.message.slice(start));
  if (!problems) return message;
  const prefix = error.message.slice(0, start).trim() || 'Invalid request:';
  // `McpServer` converts the errors of its handlers, so that an internal error with a list is one about the request.
  const isInternal = error.code === ProtocolErrorCode.InternalError;
  const code = isInternal ? ProtocolErrorCode.InvalidParams : error.code;
  const data = error.data ?? { code: 'FORMAT_ERROR', retryable: false };
  return { ...message, error: { code, message: `${prefix} ${problems}`, data } };
}

/** Returns `params.name: expected string, received number; …`; undefined if the text is no list of problems. */
function problemsOf(text: string): string | undefined {
  if (text.length > MAX_LIST_LENGTH) return /^\[\s*\{\s*"/.test(text) ? 'too many problems to name.' : undefined;
  try {
    const issues: unknown = JSON.parse(text);
    if (!Array.isArray(issues) || issues.length === 0 || !issues.every(isIssue)) return undefined;
    const more = issues.length > MAX_PROBLEMS ? `; and ${issues.length - MAX_PROBLEMS} more` : '';
    return `${issues.slice(0, MAX_PROBLEMS).map(problem).join('; ')}${more}.`;
  } catch {
    return undefined;
  }
}

interface Issue {
  readonly path: readonly unknown[];
  readonly message: string;
}

function isIssue(value: unknown): value is Issue {
  return isObject(value) && Array.isArray(value.path) && typeof value.message === 'string';
}

function problem({ path, message }: Issue): string {
  const text = `${path.map(String).join('.')}: ${message.replace(/^Invalid input: /, '')}`;
  return text.slice(0, MAX_LENGTH).toWellFormed();
}

/**
 * Returns an error response with the id of its request, or without an id if it answers none. The SDK sends the id null
 * for requests that its transport refuses, which the MCP schema does not allow.
 */
export async function withRequestId(response: Response, body: Readonly<Record<string, unknown>>): Promise<Response> {
  const isJson = response.headers.get('content-type')?.startsWith('application/json') ?? false;
  if (response.ok || !isJson) return response;
  const message: unknown = await response.json();
  const { status, headers } = response;
  return Response.json(isObject(message) ? { ...message, id: message.id ?? idOf(body) } : message, { status, headers });
}
