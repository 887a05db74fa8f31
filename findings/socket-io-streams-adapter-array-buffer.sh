#!/usr/bin/env bash
# @socket.io/redis-streams-adapter 0.3.1 (npm): an ArrayBuffer arrives as {} on other nodes.
#
# Expected: an event arrives on every node as it does on the node that sends it. Socket.IO documents ArrayBuffer as one of
#           the types of binary data, and a Uint8Array with the same bytes arrives on both nodes.
# Actual:   clients of the sending node get the bytes; clients of other nodes get an empty object, without an error.
# Output seen on 2026-11-30, Node 20.20, Redis 7.0: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "$redis" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' >/dev/null &
redis=$!
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund \
  socket.io@4.8.4 socket.io-client@4.8.4 @socket.io/redis-streams-adapter@0.3.1 ioredis@5.8.2
cat >try.mjs <<'JS'
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-streams-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';
import { io } from 'socket.io-client';

const nodes = [];
const clients = [];
for (let index = 0; index < 2; index++) {
  const http = createServer().listen(0, '127.0.0.1');
  await once(http, 'listening');
  nodes.push(new Server(http, { adapter: createAdapter(new Redis(process.argv[2])) }));
  const client = io(`http://127.0.0.1:${http.address().port}`, { transports: ['websocket'] });
  await new Promise((resolve) => client.once('connect', resolve));
  clients.push(client);
}
// The first broadcast that reaches the other node shows that it reads the stream.
let ready = false;
clients[1].once('ready', () => (ready = true));
while (!ready) {
  nodes[0].emit('ready');
  await new Promise((resolve) => setTimeout(resolve, 100));
}
const bytes = new Uint8Array([7, 8, 9]);
for (const value of [bytes, bytes.buffer]) {
  const received = clients.map((client) => new Promise((resolve) => client.once('value', resolve)));
  nodes[0].emit('value', value);
  const shown = (await Promise.all(received)).map((got) => (Buffer.isBuffer(got) ? `bytes ${[...got]}` : JSON.stringify(got)));
  console.log(`${value.constructor.name}: ${shown[0]} on the sending node, ${shown[1]} on the other`);
}
process.exit(0);
JS
cat >EXPECTED <<'TXT'
Uint8Array: bytes 7,8,9 on the sending node, bytes 7,8,9 on the other
ArrayBuffer: bytes 7,8,9 on the sending node, {} on the other
TXT
node try.mjs "$dir/redis.sock" | tee seen
diff EXPECTED seen && echo 'unchanged'
