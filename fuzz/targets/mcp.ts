import { systemClock } from '../../src/lib/clock.ts';
import { createLogger } from '../../src/lib/logger.ts';
import { NO_TRACING } from '../../src/lib/tracing.ts';
import { NO_MESSAGE_LIMIT } from '../../src/limits/message-limit.ts';
import { McpResources } from '../../src/mcp/mcp-resources.ts';
import { McpServer } from '../../src/mcp/mcp-server.ts';
import type { McpCaller, McpTools } from '../../src/mcp/mcp-tools.ts';
import { RequestStates } from '../../src/mcp/request-states.ts';
import { jsonRpcBody } from '../../src/protocol/dialects.ts';
import { TollgateError } from '../../src/protocol/errors.ts';
import { require, requireSame, type Target } from '../lib/target.ts';

const TOOL = {
  name: 'count',
  description: 'Counts.',
  arguments: { type: 'object' },
  permission: 'p',
  units: 1,
  available: true,
};
const RESULT = { tool_call_id: 'call_1', success: true, result: { n: 1 }, duration_ms: 1, usage_record_id: null };

/** A tool that answers at once; the calls themselves are not parsed by MCP. */
const tools = {
  describe: () => [TOOL],
  isUpstream: () => false,
  async call({ tool, idempotencyKey }: { tool: string; idempotencyKey: string | null }) {
    const key = idempotencyKey ?? '';
    require(key.length <= 128 && key.isWellFormed(), 'an idempotency key is bounded');
    if (tool !== TOOL.name) throw new TollgateError('TOOL_NOT_FOUND');
    return { finished: Promise.resolve(RESULT) };
  },
} as unknown as McpTools;

const states = new RequestStates(
  { clock: systemClock },
  { secret: 'secret of the fuzz targets alone', keptMs: 60_000 },
);
const server = new McpServer({
  tools,
  states,
  resources: new McpResources({ upstreams: { all: [] }, states, permissions: { has: () => true } }),
  refusals: { refused: () => undefined },
  logger: createLogger('fuzz', 'silent'),
  tracing: NO_TRACING,
});
const caller = {
  identity: { userId: 'user_1', plan: 'pro' },
  degraded: false,
  limit: NO_MESSAGE_LIMIT,
} as unknown as McpCaller;

const META = {
  'io.modelcontextprotocol/protocolVersion': '2026-07-28',
  'io.modelcontextprotocol/clientCapabilities': {},
  'io.modelcontextprotocol/clientInfo': { name: 'c', version: '1' },
};
const rpc = (method: string, params: object = {}) => JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });

const body: Target = {
  name: 'mcp-body',
  seeds: [
    rpc('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'c', version: '1' } }),
    rpc('tools/list'),
    rpc('tools/list', { _meta: META }),
    rpc('tools/call', { name: 'count', arguments: { days: 1 }, _meta: { ...META, 'tollgate/idempotencyKey': 'k' } }),
    rpc('tools/call', { name: 'count', arguments: {}, _meta: { progressToken: 1, traceparent: '00-x' } }),
    rpc('tools/call', { name: 'count', requestState: 'x', inputResponses: { a: {} }, _meta: META }),
    '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
    rpc('server/discover', { _meta: META }),
  ],
  words: [
    ...Object.keys(META),
    'jsonrpc',
    'method',
    'params',
    'id',
    '_meta',
    'tools/call',
    'tools/list',
    'ping',
    'cursor',
    'resources/read',
    'requestState',
  ],
  maxBytes: 16_384,
  async run(input) {
    const message = jsonRpcBody(input.toString('utf8'));
    const meta = Object(Object(message.params)._meta);
    const version: unknown = meta['io.modelcontextprotocol/protocolVersion'];
    const plain = (value: unknown) => `=?base64?${Buffer.from(String(value)).toString('base64')}?=`;
    const modern: Record<string, string> =
      typeof version === 'string'
        ? { 'mcp-protocol-version': plain(version), 'mcp-method': plain(message.method) }
        : {};
    const headers = { 'content-type': 'application/json', accept: 'application/json', ...modern };
    const request = new Request('http://gateway/mcp', { method: 'POST', headers });
    const response = await server.serve({ request, body: message, caller, signalCancels: false });
    const text = await response.text();
    require(response.status < 500, `a malformed message is no fault of the gateway: ${response.status} ${text}`);
    require(!/node_modules|\/src\/|at \w+ \(/.test(text), 'an answer shows no code');
    if (text === '') return;
    const answer = JSON.parse(text) as Record<string, unknown>;
    require(answer.jsonrpc === '2.0' && 'result' in answer !== 'error' in answer, 'an answer is a result or an error');
    const { code } = Object(answer.error);
    require(code === undefined || code !== -32603, `an error names its cause: ${text}`);
    const { id } = message;
    if (answer.id !== undefined && (typeof id === 'string' || typeof id === 'number')) {
      requireSame(answer.id, id, 'an answer has the id of its request');
    }
  },
};

export const MCP_TARGETS: readonly Target[] = [body];
