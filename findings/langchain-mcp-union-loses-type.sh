#!/usr/bin/env bash
# @langchain/mcp-adapters 1.1.4 (npm): an optional string of an MCP tool is offered to the model without a type.
#
# Expected: `anyOf: [string, null]`, which Pydantic (so FastMCP in Python) writes for each `Optional[str]`, reaches
#           the model as it is, or as a string.
# Actual:   "simplification" removes `anyOf` and `oneOf` at every level and keeps only variants that are objects. With
#           them go the type, its length, its description: the parameter becomes an empty schema, which admits
#           anything.
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
  name: 'search',
  inputSchema: {
    type: 'object',
    properties: {
      text: { type: 'string', maxLength: 200 },
      language: { anyOf: [{ type: 'string', maxLength: 2, description: 'ISO 639-1' }, { type: 'null' }], default: null },
      page: { oneOf: [{ type: 'integer' }, { const: 'last' }] },
    },
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
const [search] = await client.getTools();
for (const [name, schema] of Object.entries(search.schema.properties)) console.log(name, JSON.stringify(schema));
await client.close();
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
text {"type":"string","maxLength":200}
language {"default":null}
page {}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
