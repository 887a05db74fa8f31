import { type JSONRPCMessage, specTypeSchemas, type Transport } from '@modelcontextprotocol/client';
import { MissingCapability, UpstreamBusy, UpstreamFault, UpstreamRefusal } from '../../src/upstreams/faults.ts';
import { readAnswer } from '../../src/upstreams/http-answers.ts';
import { parseInputRequests } from '../../src/upstreams/input-requests.ts';
import { readLeniently } from '../../src/upstreams/received.ts';
import type { OmittedRow } from '../../src/upstreams/rows.ts';
import { require, type Target } from '../lib/target.ts';

const isFault = (error: unknown) =>
  [UpstreamFault, UpstreamRefusal, UpstreamBusy, MissingCapability].some((kind) => error instanceof kind);

const STATUSES = [200, 200, 400, 404, 429, 500, 503];

const answer: Target = {
  name: 'mcp-http-answer',
  seeds: [
    '0{"jsonrpc":"2.0","id":1,"result":{"content":[]}}',
    '2{"error":{"code":-32602,"message":"limit must be positive","data":{}}}',
    '1[{"result":{"nextCursor":null,"_meta":null}}]',
    '3Session not found',
    '4{"jsonrpc":"2.0","error":{"code":1.5}}',
  ],
  words: ['jsonrpc', '2.0', 'id', 'result', 'error', 'code', 'message', 'data', '_meta', 'session', 'not initialized'],
  maxBytes: 16_384,
  isRefusal: isFault,
  async run(input) {
    const status = STATUSES[(input[0] ?? 0) % STATUSES.length] ?? 200;
    const headers = { 'content-type': 'application/json', 'retry-after': input.subarray(1, 6).toString('hex') };
    const response = new Response(input.subarray(1).toString('utf8'), { status, headers });
    const read = await readAnswer(response, { id: 1, method: 'tools/call', inSession: true });
    const text = await read.text();
    if (status === 200 || !read.ok) return;
    const message = JSON.parse(text) as Record<string, unknown>;
    require(message.id === 1 && message.jsonrpc === '2.0', 'an error is that of the request');
    require(Number.isSafeInteger(Object(message.error).code), 'an error has a whole number as code');
  },
};

const METHODS = ['tools/call', 'tools/list', 'resources/list', 'prompts/list', 'initialize', 'server/discover'];
const SCHEMAS = { 'tools/list': 'Tool', 'resources/list': 'Resource', 'prompts/list': 'Prompt' } as const;
const MEMBERS = { 'tools/list': 'tools', 'resources/list': 'resources', 'prompts/list': 'prompts' } as const;

const result: Target = {
  name: 'mcp-result',
  seeds: [
    '0{"content":[{"type":"text","text":"x","annotations":{"priority":7}},"y",{"type":"odd"}],"isError":"true"}',
    '1{"tools":[{"name":"t","inputSchema":{"type":"object"},"outputSchema":null,"title":7},null,{}],"nextCursor":"c"}',
    '2{"resources":[{"uri":"a:b","name":null,"mimeType":1}]}',
    '3{"prompts":[{"name":"p","arguments":[{"name":"a","required":null}]}]}',
    '4{"protocolVersion":"2025-06-18","serverInfo":null,"capabilities":{"tools":null,"x":1}}',
    '0{"structuredContent":[1],"_meta":null,"content":{"type":"image","data":"AA==","mimeType":"a/b"}}',
    '0{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{"mode":"url"}}}}',
  ],
  words: [
    ...['content', 'type', 'text', 'structuredContent', 'isError', 'tools', 'name', 'inputSchema', 'outputSchema'],
    ...['annotations', 'icons', '_meta', 'nextCursor', 'resource', 'resource_link', 'uri', 'blob', 'arguments', 'task'],
    ...['inputRequests', 'requestState', 'elicitation/create', 'sampling/createMessage', 'roots/list', 'method'],
  ],
  maxBytes: 16_384,
  isRefusal: (error) => isFault(error) || error instanceof SyntaxError,
  async run(input) {
    const method = METHODS[(input[0] ?? 0) % METHODS.length] ?? 'tools/call';
    const given: unknown = JSON.parse(input.subarray(1).toString('utf8'));
    if (typeof given !== 'object' || given === null || Array.isArray(given)) return;
    const omitted: OmittedRow[] = [];
    const transport = { send: async () => undefined } as unknown as Transport;
    const server = {
      address: { kind: 'http', url: 'http://s.test/', headers: {} },
      tools: new Map(),
      responseBytes: 1e6,
    };
    const onOmitted = (row: OmittedRow) => omitted.push(row);
    readLeniently(transport, { schemas: specTypeSchemas, server, onOmitted } as never);
    let received: JSONRPCMessage | undefined;
    transport.onmessage = (message) => {
      received = message;
    };
    await transport.send({ jsonrpc: '2.0', id: 1, method });
    transport.onmessage?.({ jsonrpc: '2.0', id: 1, result: structuredClone(given) } as never);
    const read: unknown = Object(received).result;
    if (read === undefined) {
      require(typeof Object(Object(received).error).data === 'string', 'a response without a result is an error');
      return;
    }
    // Serialisation is recursive, and every result is serialised.
    JSON.stringify(read);
    if (method in SCHEMAS) {
      const list = method as keyof typeof SCHEMAS;
      const rows = (read as Record<string, unknown>)[MEMBERS[list]];
      require(Array.isArray(rows), 'a list is a list');
      for (const row of rows as unknown[]) {
        const { issues = [] } = specTypeSchemas[SCHEMAS[list]]['~standard'].validate(row) as Issues;
        require(issues.length === 0, `a row that is not omitted is valid: ${JSON.stringify(row)}`);
      }
      require(omitted.every(({ name }) => name.length <= 200 && name.isWellFormed()), 'the names of rows are bounded');
      return;
    }
    if (method !== 'tools/call') return;
    const fields = read as Record<string, unknown>;
    if (Array.isArray(fields.content)) {
      const { issues = [] } = specTypeSchemas.ContentBlock['~standard'].validate(fields.content[0] ?? TEXT) as Issues;
      require(issues.length === 0, 'a block of content has a known type');
    }
    const declared = { elicitation: {}, sampling: {}, roots: {} };
    const allowed = { name: 's', allowedInputRequests: ['elicitation'] } as const;
    const { inputRequests } = parseInputRequests(fields, allowed, { capabilities: declared } as never);
    for (const one of Object.values(inputRequests)) {
      const { method: asked, params } = Object(one);
      require(asked === 'elicitation/create' && Object(params).mode !== 'url', 'only allowed kinds pass');
    }
  },
};

interface Issues {
  readonly issues?: readonly unknown[];
}
const TEXT = { type: 'text', text: '' };

export const TOOL_SERVER_TARGETS: readonly Target[] = [answer, result];
