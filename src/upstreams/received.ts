import type { JSONRPCMessage, RequestId, Transport } from '@modelcontextprotocol/client';
import type { ToolServer } from '../catalogue/tool-servers.ts';
import { isObject } from '../lib/json.ts';
import { TOO_LARGE } from './faults.ts';
import { readToolResult } from './results.ts';
import {
  isListMethod,
  type Json,
  type ListMethod,
  type OmittedRow,
  type RowRules,
  readPage,
  type SpecSchemas,
  withoutNulls,
} from './rows.ts';

/** Maximum number of pages per list. */
const MAX_PAGES = 16;
/** Requests whose response is expected; the oldest is forgotten first, and its response is then read as it is. */
const MAX_REQUESTS = 4_096;
/** Reserved for implementation-defined server errors (JSON-RPC 2.0 section 5.1). */
const SERVER_ERROR = -32000;

export interface ReceivedOptions {
  readonly schemas: SpecSchemas;
  readonly server: Pick<ToolServer, 'address' | 'tools' | 'resources' | 'prompts' | 'responseBytes'>;
  readonly onOmitted: (row: OmittedRow) => void;
}

interface SentRequest {
  readonly method: string;
  readonly cursor: unknown;
}

/**
 * Rewrites the responses of a server before the SDK validates them, because the SDK refuses a whole list for one row
 * and a whole result for one member. Must be called before the client connects.
 */
export function readLeniently(transport: Transport, options: ReceivedOptions): void {
  const sent = new Map<string, SentRequest>();
  const reader = new ResponseReader(options);
  const send = transport.send.bind(transport);
  transport.send = (message, sendOptions) => {
    if ('method' in message && 'id' in message) {
      sent.set(String(message.id), { method: message.method, cursor: message.params?.cursor });
      const [oldest] = sent.keys();
      if (sent.size > MAX_REQUESTS && oldest !== undefined) sent.delete(oldest);
    }
    return send(message, sendOptions);
  };
  let receive = transport.onmessage;
  // The SDK assigns `onmessage` twice, for the negotiation and for the connection. A handler that was read here and
  // wrapped by its reader sees each response again, which is then no longer in `sent` and stays as it is.
  Object.defineProperty(transport, 'onmessage', {
    configurable: true,
    enumerable: true,
    get: (): Transport['onmessage'] => {
      const current = receive;
      if (!current) return undefined;
      return (message, extra) => current(rewritten(message), extra);
    },
    set: (handler: Transport['onmessage']) => {
      receive = handler;
    },
  });
  const rewritten = (message: JSONRPCMessage): JSONRPCMessage => {
    if (!('id' in message) || 'method' in message || message.id === undefined) return message;
    const request = sent.get(String(message.id));
    sent.delete(String(message.id));
    return request && 'result' in message ? reader.read(request, message) : message;
  };
}

type Response = Extract<JSONRPCMessage, { result: unknown }>;

class ResponseReader {
  readonly #options: ReceivedOptions;
  /** Pages read so far, by list and the cursor of the next page. */
  readonly #pages = new Map<string, number>();
  #isLegacy = false;

  constructor(options: ReceivedOptions) {
    this.#options = options;
  }

  read(request: SentRequest, message: Response): JSONRPCMessage {
    const { method } = request;
    const { server } = this.#options;
    const { result } = message;
    if (isListMethod(method)) return { ...message, result: this.#page(method, request.cursor, result) };
    if (method === 'initialize') {
      this.#isLegacy = true;
      return { ...message, result: this.#declared(withServerInfo(result)) };
    }
    if (method === 'server/discover') return { ...message, result: this.#declared(result) };
    if (method !== 'tools/call' && method !== 'tasks/result') return message;
    // Bodies of HTTP responses are bounded while they are read.
    if (server.address.kind === 'stdio' && Buffer.byteLength(JSON.stringify(result)) > server.responseBytes) {
      return tooLarge(message.id);
    }
    return { ...message, result: readToolResult(this.#rules, result) };
  }

  get #rules(): RowRules {
    return { schemas: this.#options.schemas, isLegacy: this.#isLegacy };
  }

  #page(list: ListMethod, cursor: unknown, listed: Json): Json {
    const { onOmitted } = this.#options;
    const { result, omitted } = readPage(this.#rules, list, listed);
    for (const row of omitted) onOmitted(row);
    const { nextCursor, ...last } = result;
    if (nextCursor === undefined) return result;
    const key = (of: unknown) => `${list} ${String(of)}`;
    if (cursor === undefined)
      for (const one of [...this.#pages.keys()]) if (one.startsWith(`${list} `)) this.#pages.delete(one);
    const pages = cursor === undefined ? 1 : (this.#pages.get(key(cursor)) ?? MAX_PAGES);
    const isRepeated = nextCursor === cursor || this.#pages.has(key(nextCursor));
    if (!isRepeated && pages < MAX_PAGES) {
      this.#pages.set(key(nextCursor), pages + 1);
      return result;
    }
    const reason = isRepeated ? 'nextCursor repeats itself' : `the list has more than ${MAX_PAGES} pages`;
    onOmitted({ list, name: '', reason });
    return last;
  }

  /** A server that has tools without declaring them is requested to list them; so are resources and prompts. */
  #declared(result: Json): Json {
    const { tools, resources, prompts } = this.#options.server;
    const { capabilities, instructions, ...rest } = result;
    const declared = Object.entries(isObject(capabilities) ? capabilities : {}).flatMap(([name, value]) => {
      return isObject(value) ? [[name, withoutNulls(value)]] : [];
    });
    return {
      ...rest,
      ...(typeof instructions === 'string' ? { instructions } : {}),
      capabilities: {
        ...(tools.size > 0 ? { tools: {} } : {}),
        ...(resources ? { resources: {} } : {}),
        ...(prompts ? { prompts: {} } : {}),
        ...Object.fromEntries(declared),
      },
    };
  }
}

function withServerInfo(result: Json): Json {
  const { name, version } = isObject(result.serverInfo) ? result.serverInfo : {};
  return { ...result, serverInfo: { name: wordOf(name), version: wordOf(version) } };
}

function wordOf(value: unknown): string {
  return typeof value === 'string' ? value : 'unknown';
}

export function tooLarge(id: RequestId): JSONRPCMessage {
  const error = { code: SERVER_ERROR, message: 'the response is too large', data: TOO_LARGE };
  return { jsonrpc: '2.0', id, error };
}
