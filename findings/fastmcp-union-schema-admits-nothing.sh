#!/usr/bin/env bash
# fastmcp 4.20.16 (npm): the listed schema of a union admits no arguments at all.
#
# Expected: The schema in tools/list admits the arguments that the tool accepts.
# Actual:   Beside `oneOf` the list has `additionalProperties: false` and no `properties`. That keyword sees only
#           `properties` beside it (JSON Schema, "additionalProperties"), so that every member is one too many. A
#           client that checks arguments before a call, or a gateway, refuses each call that the tool would accept.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund fastmcp@4.20.16 ajv@8.20.0 zod@4.6.7
cat >try.mjs <<'JS'
import { Ajv } from 'ajv';
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
const port = await freePort();
const server = new FastMCP({ name: 's', version: '1.0.0', logger });
server.addTool({ name: 'find', parameters: choice, execute: async (found) => `found by ${found.by}` });
await server.start({ transportType: 'httpStream', httpStream: { host: '127.0.0.1', port, stateless: true } });
const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
async function request(method, params) {
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
  const response = await fetch(`http://127.0.0.1:${port}/mcp`, { method: 'POST', headers, body });
  const [data] = (await response.text()).split('\n').filter((line) => line.startsWith('data: '));
  return JSON.parse(data.slice(6)).result;
}
const { tools } = await request('tools/list', {});
const { $schema, ...schema } = tools[0].inputSchema;
console.log(Object.keys(schema).sort().join(', '));
const admits = new Ajv({ strict: false }).compile(schema);
for (const args of [{ by: 'name', name: 'Ann' }, { by: 'number', number: 7 }]) {
  const { content } = await request('tools/call', { name: 'find', arguments: args });
  console.log(`${JSON.stringify(args)}: schema ${admits(args)}, tool "${content[0].text}"`);
}
process.exit();
JS
cat >EXPECTED <<'TXT'
additionalProperties, oneOf
{"by":"name","name":"Ann"}: schema false, tool "found by name"
{"by":"number","number":7}: schema false, tool "found by number"
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
