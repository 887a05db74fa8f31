#!/usr/bin/env bash
# @modelcontextprotocol/client 2.4.0 (npm): a tool result without an optional property named `constructor` is rejected.
#
# Expected: an output schema may describe any property. A result that leaves out an optional one is valid (JSON Schema
#           2020-12 Core, section 10.3.2.1: "properties" applies to names that appear in the instance). Schemas of motor
#           sport results have a property `constructor`, for example.
# Actual:   the default validator (Ajv without `ownProperties`) finds the function that every object inherits under that
#           name, so that a result without the property is rejected as having one that is no string.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @modelcontextprotocol/client@2.4.0
cat >try.mjs <<'JS'
import { createServer } from 'node:http';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const outputSchema = {
  type: 'object',
  properties: { driver: { type: 'string' }, constructor: { type: 'string' } },
};
let structuredContent;
const results = {
  initialize: () => ({ protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 's', version: '1' } }),
  'tools/list': () => ({ tools: [{ name: 't', inputSchema: { type: 'object' }, outputSchema }] }),
  'tools/call': () => ({ content: [{ type: 'text', text: JSON.stringify(structuredContent) }], structuredContent }),
};
const server = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  if (request.method !== 'POST') return response.writeHead(405).end();
  const { id, method } = JSON.parse(body);
  if (id === undefined) return response.writeHead(202).end();
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ jsonrpc: '2.0', id, result: results[method]() }));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const client = new Client({ name: 'c', version: '1' });
await client.connect(new StreamableHTTPClientTransport(new URL(`http://127.0.0.1:${server.address().port}/mcp`)));
await client.listTools();
for (structuredContent of [{ driver: 'A', constructor: 'B' }, { driver: 'A' }]) {
  const sent = JSON.stringify(structuredContent);
  try {
    const result = await client.callTool({ name: 't', arguments: {} });
    console.log(`${sent}: ${JSON.stringify(result.structuredContent)}`);
  } catch (error) {
    console.log(`${sent}: ${error.constructor.name}, ${error.message}`);
  }
}
await client.close();
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
{"driver":"A","constructor":"B"}: {"driver":"A","constructor":"B"}
{"driver":"A"}: ProtocolError, Structured content does not match the tool's output schema: data/constructor must be string
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
