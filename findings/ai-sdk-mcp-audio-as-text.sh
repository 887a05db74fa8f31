#!/usr/bin/env bash
# @ai-sdk/mcp 2.0.99 (npm): audio in an MCP tool result reaches the model as JSON text with base64 in it.
#
# Expected: MCP has audio content since 2025-03-26, with the same members as an image. An image becomes a file part
#           with its media type; audio becomes a file part too, or is refused.
# Actual:   the whole content block is serialized into a text part. A clip of one second (16 kHz, 16 bits) is about
#           43,000 characters of text that the model is charged for and cannot hear.
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

const tool = { name: 'record', inputSchema: { type: 'object' } };
const data = Buffer.from([1, 2, 3, 4]).toString('base64');
const result = {
  content: [
    { type: 'image', data, mimeType: 'image/png' },
    { type: 'audio', data, mimeType: 'audio/wav' },
  ],
};
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
const { record } = await client.tools();
const output = await record.execute({}, { toolCallId: '1', messages: [] });
const { value } = await record.toModelOutput({ toolCallId: '1', input: {}, output });
for (const part of value) console.log(JSON.stringify(part));
await client.close();
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
{"type":"file","mediaType":"image/png","data":{"type":"data","data":"AQIDBA=="}}
{"type":"text","text":"{\"type\":\"audio\",\"data\":\"AQIDBA==\",\"mimeType\":\"audio/wav\"}"}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
