#!/usr/bin/env bash
# socket.io-msgpack-parser 3.0.2 (npm, with its encoder notepack.io 2.2.0): a number of 2^64 or more arrives as another.
#
# Expected: a number arrives as it was sent, as with the default parser. MessagePack has float 64 for numbers that do not
#           fit into its integers (specification, "Float format family").
# Actual:   every finite number without a fraction is written as an integer of 64 bits, so that the bits above are lost:
#           6.02214076e23 arrives as 1668969677964968000, and 1e300 as 0. There is no error.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund socket.io@4.8.4 socket.io-client@4.8.4 socket.io-msgpack-parser@3.0.2
cat >try.mjs <<'JS'
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';
import parser from 'socket.io-msgpack-parser';

const values = [2 ** 53, 1e19, 6.02214076e23, -1e20, 1e300, 1.5e-7];
for (const [name, options] of [['default parser', {}], ['socket.io-msgpack-parser', { parser }]]) {
  const http = createServer().listen(0, '127.0.0.1');
  const server = new Server(http, options);
  await once(http, 'listening');
  server.on('connection', (socket) => socket.on('value', (value, answer) => answer(String(value))));
  const client = io(`http://127.0.0.1:${http.address().port}`, { transports: ['websocket'], ...options });
  for (const value of values) {
    const answer = await client.timeout(5_000).emitWithAck('value', value);
    console.log(`${name}: ${value} arrived as ${answer}`);
  }
  client.close();
  await server.close();
}
JS
cat >EXPECTED <<'TXT'
default parser: 9007199254740992 arrived as 9007199254740992
default parser: 10000000000000000000 arrived as 10000000000000000000
default parser: 6.02214076e+23 arrived as 6.02214076e+23
default parser: -100000000000000000000 arrived as -100000000000000000000
default parser: 1e+300 arrived as 1e+300
default parser: 1.5e-7 arrived as 1.5e-7
socket.io-msgpack-parser: 9007199254740992 arrived as 9007199254740992
socket.io-msgpack-parser: 10000000000000000000 arrived as 10000000000000000000
socket.io-msgpack-parser: 6.02214076e+23 arrived as 1668969677964968000
socket.io-msgpack-parser: -100000000000000000000 arrived as -7766279631452242000
socket.io-msgpack-parser: 1e+300 arrived as 0
socket.io-msgpack-parser: 1.5e-7 arrived as 1.5e-7
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
