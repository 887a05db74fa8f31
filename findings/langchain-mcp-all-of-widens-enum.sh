#!/usr/bin/env bash
# @langchain/mcp-adapters 1.1.4 (npm): two constraints that both must hold become one that is met by either.
#
# Expected: `allOf` with the values low, mid and with mid, high admits `mid` and nothing else (JSON Schema 2020-12,
#           section 10.2.1.1). Generators write this where a type is narrowed.
# Actual:   the values are joined: the model is offered low, mid and high, and two of three calls are refused by the
#           server.
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

const level = { allOf: [{ enum: ['low', 'mid'] }, { enum: ['mid', 'high'] }] };
const tool = { name: 'start', inputSchema: { type: 'object', properties: { level } } };
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
const [start] = await client.getTools();
console.log('server:', JSON.stringify(level));
console.log('model: ', JSON.stringify(start.schema.properties.level));
await client.close();
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
server: {"allOf":[{"enum":["low","mid"]},{"enum":["mid","high"]}]}
model:  {"enum":["low","mid","high"]}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
