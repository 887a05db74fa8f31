#!/usr/bin/env bash
# @modelcontextprotocol/client 2.4.0 (npm): a date without a time in an annotation makes the client reject the whole tool result.
#
# Expected: `annotations.lastModified` is "an ISO 8601 formatted string" (MCP 2025-11-25, Annotations); "2026-11-30" is one
#           (ISO 8601-1 section 5.2.2, calendar date). An annotation is a hint, so that at worst the hint is dropped.
# Actual:   only a date with a time is accepted; otherwise callTool() rejects and the text of the result is lost.
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

let lastModified;
const results = {
  initialize: () => ({ protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 's', version: '1' } }),
  'tools/call': () => ({ content: [{ type: 'text', text: 'the answer', annotations: { lastModified } }] }),
};
const server = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  if (request.method !== 'POST') return response.writeHead(405).end();
  const { id, method } = JSON.parse(body);
  if (id === undefined) return response.writeHead(202).end();
  const result = results[method]?.();
  const error = { code: -32601, message: 'Method not found' };
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ jsonrpc: '2.0', id, ...(result ? { result } : { error }) }));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const client = new Client({ name: 'c', version: '1' });
await client.connect(new StreamableHTTPClientTransport(new URL(`http://127.0.0.1:${server.address().port}/mcp`)));
for (lastModified of ['2026-11-30T09:00:00+01:00', '2026-11-30']) {
  try {
    const { content } = await client.callTool({ name: 't', arguments: {} });
    console.log(lastModified, content[0].text);
  } catch (error) {
    console.log(lastModified, error.constructor.name, error.message.includes('"format": "datetime"'));
  }
}
await client.close();
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
2026-11-30T09:00:00+01:00 the answer
2026-11-30 SdkError true
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
