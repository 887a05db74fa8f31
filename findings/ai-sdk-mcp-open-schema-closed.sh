#!/usr/bin/env bash
# @ai-sdk/mcp 2.0.99 (npm): a tool that takes any set of labels is offered to the model as one that takes none.
#
# Expected: `inputSchema` of an MCP tool is a JSON Schema. `additionalProperties: {"type":"string"}` says that the
#           arguments are a map of strings; the model gets the schema of the server.
# Actual:   tools() sets `additionalProperties: false` at the top of each schema, whatever the server says. Here no
#           argument remains, so a model that obeys the schema can only call the tool with {}.
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

const tool = { name: 'set_labels', inputSchema: { type: 'object', additionalProperties: { type: 'string' } } };
const result = { content: [] };
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
const tools = await client.tools();
console.log('server:', JSON.stringify(tool.inputSchema));
console.log('model: ', JSON.stringify(await tools.set_labels.inputSchema.jsonSchema));
await client.close();
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
server: {"type":"object","additionalProperties":{"type":"string"}}
model:  {"type":"object","additionalProperties":false,"properties":{}}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
