#!/usr/bin/env bash
# @langchain/mcp-adapters 1.1.4 (npm): a parameter of an MCP tool that is called `definitions` disappears.
#
# Expected: a property may have any name. `definitions` is a keyword of JSON Schema (up to draft 7) in a schema, not
#           among the names of `properties`.
# Actual:   the step that inlines references removes each member `definitions` and `$defs` at every level, names of
#           properties included. The model never learns of the parameter, although `required` still lists it.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @langchain/mcp-adapters@1.1.4 @langchain/core@1.4.0
cat >try.mjs <<'JS'
import { createServer } from 'node:http';
import { MultiServerMCPClient } from '@langchain/mcp-adapters';

const tool = {
  name: 'add_terms',
  inputSchema: {
    type: 'object',
    properties: { glossary: { type: 'string' }, definitions: { type: 'array', items: { type: 'string' } } },
    required: ['glossary', 'definitions'],
  },
};
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
const client = new MultiServerMCPClient({ mcpServers: { s: { transport: 'http', url } } });
const [addTerms] = await client.getTools();
console.log('server:', JSON.stringify(tool.inputSchema));
console.log('model: ', JSON.stringify(addTerms.schema));
await client.close();
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
server: {"type":"object","properties":{"glossary":{"type":"string"},"definitions":{"type":"array","items":{"type":"string"}}},"required":["glossary","definitions"]}
model:  {"type":"object","properties":{"glossary":{"type":"string"}},"required":["glossary","definitions"]}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
