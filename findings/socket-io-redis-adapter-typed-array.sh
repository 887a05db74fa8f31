#!/usr/bin/env bash
# @socket.io/redis-adapter 8.3.0 (npm): a Float32Array arrives as different bytes on the emitting node and on other
# nodes.
#
# Expected: io.emit() sends every client the same bytes, whichever node the client is on: Socket.IO sends a typed array
#           as the bytes of its buffer, eight for the two elements 1 and 2.
# Actual:   clients of the emitting node get these eight bytes. Clients of the other node get two bytes, one per element
#           (the adapter's MessagePack encoder passes the array to Buffer.from(), which converts elements), so that 1.5
#           arrives as 1. A Uint8Array is the same on both nodes.
# Output seen on 2026-11-30, Node 20.20 (little-endian), Redis 7.0.15: see EXPECTED below. Needs redis-server on the
# PATH.
set -euo pipefail
command -v redis-server >/dev/null || { echo 'redis-server not found' >&2; exit 1; }
dir=$(mktemp -d)
redis=
trap '[ -z "$redis" ] || kill "$redis"; rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund \
  @socket.io/redis-adapter@8.3.0 socket.io@4.8.4 socket.io-client@4.8.4 ioredis@5.11.1
redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' >redis.log &
redis=$!
until [ -S redis.sock ]; do kill -0 "$redis"; sleep 0.1; done
cat >try.cjs <<'JS'
const { createServer } = require('node:http');
const { once } = require('node:events');
const { createAdapter } = require('@socket.io/redis-adapter');
const { Redis } = require('ioredis');
const { Server } = require('socket.io');
const { io: connect } = require('socket.io-client');

async function startNode() {
  const clients = [new Redis(`${__dirname}/redis.sock`), new Redis(`${__dirname}/redis.sock`)];
  const server = createServer();
  const io = new Server(server, { adapter: createAdapter(...clients) });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const socket = connect(`http://127.0.0.1:${server.address().port}`, { transports: ['websocket'] });
  await once(socket, 'connect');
  const stop = async () => {
    socket.close();
    await io.close();
    for (const client of clients) client.disconnect();
  };
  return { io, socket, stop };
}

(async () => {
  const nodes = [await startNode(), await startNode()];
  while ((await nodes[0].io.fetchSockets()).length < 2) await new Promise((resolve) => setTimeout(resolve, 50));
  for (const sent of [Uint8Array.of(1, 2), Float32Array.of(1, 2), Float32Array.of(1.5, 2)]) {
    const arrived = nodes.map(({ socket }) => once(socket, 'data'));
    nodes[0].io.emit('data', sent);
    const [[here], [other]] = await Promise.all(arrived);
    const name = `${sent.constructor.name} ${sent.join(' ')}`;
    console.log(name, '| emitting node', here.toString('hex'), '| other node', other.toString('hex'));
  }
  for (const node of nodes) await node.stop();
})();
JS
cat >EXPECTED <<'TXT'
Uint8Array 1 2 | emitting node 0102 | other node 0102
Float32Array 1 2 | emitting node 0000803f00000040 | other node 0102
Float32Array 1.5 2 | emitting node 0000c03f00000040 | other node 0102
TXT
timeout 60 node try.cjs | tee seen
diff EXPECTED seen && echo 'unchanged'
