#!/usr/bin/env bash
# @ai-sdk/mcp 2.0.99 (npm): the model receives an empty result when an MCP tool answers with structured content only.
#
# Expected: {"total":3} reaches the model. MCP 2025-11-25 (server/tools, Structured Content) says that a server
#           "SHOULD" repeat structured content as text, so a result with `content: []` and `structuredContent` is
#           valid. A result that has no member `content` at all is passed to the model as JSON.
# Actual:   toModelOutput() converts `content` and nothing else: the model sees a call that returned nothing.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @ai-sdk/mcp@2.0.99 zod@4.6.7
cat >try.mjs <<'JS'
import { createServer } from 'node:http';
import { createMCPClient } from '@ai-sdk/mcp';

const tool = { name: 'count', inputSchema: { type: 'object' } };
const result = { content: [], structuredContent: { total: 3 } };
const answers = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 's', version: '1' },
  }),
  'tools/list': () => ({ tools: [tool] }),
  'tools/call': () => result,
};
const server = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  if (request.method !== 'POST') return response.writeHead(405).end();
  const { id, method, params } = JSON.parse(body);
  if (id === undefined) return response.writeHead(202).end();
  response.writeHead(200, { 'content-type': 'application/json' });
  const answer = answers[method];
  const unknown = { code: -32601, message: 'Method not found' };
  response.end(JSON.stringify({ jsonrpc: '2.0', id, ...(answer ? { result: answer(params) } : { error: unknown }) }));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `http://127.0.0.1:${server.address().port}/mcp`;
const client = await createMCPClient({ transport: { type: 'http', url } });
const { count } = await client.tools();
const output = await count.execute({}, { toolCallId: '1', messages: [] });
console.log('result:', JSON.stringify(output));
console.log('model: ', JSON.stringify(await count.toModelOutput({ toolCallId: '1', input: {}, output })));
await client.close();
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
result: {"content":[],"structuredContent":{"total":3},"isError":false}
model:  {"type":"content","value":[]}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
