#!/usr/bin/env bash
# fastmcp 4.20.16, @modelcontextprotocol/client 2.4.0 (npm): one tool with a union as parameters hides all others.
#
# Expected: Parameters that are a discriminated union of objects are listed with `type: "object"`, which MCP requires
#           of an input schema, or addTool() refuses them. At worst this one tool is missing.
# Actual:   The schema is listed with `oneOf` and without a type, and the client then rejects the whole tools/list.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund fastmcp@4.20.16 @modelcontextprotocol/client@2.4.0 zod@4.6.7
cat >try.mjs <<'JS'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { FastMCP } from 'fastmcp';
import { createServer } from 'node:net';
import { z } from 'zod';

const freePort = () =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
const silent = () => {};
const logger = { debug: silent, error: silent, info: silent, log: silent, warn: silent };
const choice = z.discriminatedUnion('by', [
  z.object({ by: z.literal('name'), name: z.string() }),
  z.object({ by: z.literal('number'), number: z.number() }),
]);
for (const parameters of [z.object({ choice }), choice]) {
  const port = await freePort();
  const server = new FastMCP({ name: 's', version: '1.0.0', logger });
  server.addTool({ name: 'time', description: 'time of day', execute: async () => '09:00' });
  server.addTool({ name: 'find', description: 'find one', parameters, execute: async (found) => JSON.stringify(found) });
  await server.start({ transportType: 'httpStream', httpStream: { host: '127.0.0.1', port, stateless: true } });
  const client = new Client({ name: 'c', version: '1' });
  await client.connect(new StreamableHTTPClientTransport(new URL(`http://127.0.0.1:${port}/mcp`)));
  const kind = parameters === choice ? 'union' : 'object';
  try {
    const { tools } = await client.listTools();
    console.log(`${kind}: ${tools.map(({ name }) => name).join(', ')}`);
  } catch (error) {
    console.log(`${kind}: ${error.constructor.name}, ${error.message.split(':')[0]}`);
  }
  await client.close();
}
process.exit();
JS
cat >EXPECTED <<'TXT'
object: time, find
union: SdkError, Invalid result for tools/list
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
