#!/usr/bin/env bash
# @modelcontextprotocol/client 2.4.0 (npm): the client rejects a price such as 19.99 in a tool result whose schema says
# `multipleOf: 0.01`.
#
# Expected: 19.99 is a multiple of 0.01 (JSON Schema 2020-12 Validation, section 6.2.1: the division results in an
#           integer; numbers of JSON are decimal), so callTool() returns the result.
# Actual:   the default validator (Ajv without `multipleOfPrecision`) divides binary numbers: 19.99 / 0.01 is
#           1998.9999999999998. The call rejects and its result is lost. Whether a price is accepted depends on the price.
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

const outputSchema = { type: 'object', properties: { price: { type: 'number', multipleOf: 0.01 } } };
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
for (structuredContent of [{ price: 19.98 }, { price: 19.99 }, { price: 4.35 }]) {
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
{"price":19.98}: {"price":19.98}
{"price":19.99}: ProtocolError, Structured content does not match the tool's output schema: data/price must be multiple of 0.01
{"price":4.35}: ProtocolError, Structured content does not match the tool's output schema: data/price must be multiple of 0.01
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
