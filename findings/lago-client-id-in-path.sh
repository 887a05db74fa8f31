#!/usr/bin/env bash
# lago-javascript-client 1.53.0 (npm): identifiers that the caller chooses go into the path without percent-encoding.
#
# Expected: an `external_id` is any text; identity providers give out addresses, such as "https://id.example/42". The
#           client encodes it as one segment of the path (RFC 3986, section 2.2), as it encodes values of the query.
# Actual:   "/" starts another segment, and "?" and "#" end the path: the request asks for another resource, or for
#           a customer with another identifier, and an answer of that one is taken for the answer.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund lago-javascript-client@1.53.0
cat >try.mjs <<'JS'
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Client } from 'lago-javascript-client';

const server = createServer((request, response) => {
  console.log(`  ${request.url}`);
  response.setHeader('content-type', 'application/json').end('{"customer":{}}');
}).listen(0, '127.0.0.1');
await once(server, 'listening');
const lago = Client('key', { baseUrl: `http://127.0.0.1:${server.address().port}/api/v1` });
for (const externalId of ['team 42', 'https://id.example/42', 'row#7', 'is it?']) {
  console.log(externalId);
  await lago.customers.findCustomer(externalId);
}
process.exit(0);
JS
cat >EXPECTED <<'TXT'
team 42
  /api/v1/customers/team%2042
https://id.example/42
  /api/v1/customers/https://id.example/42
row#7
  /api/v1/customers/row
is it?
  /api/v1/customers/is%20it
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
