#!/usr/bin/env bash
# socket.io-msgpack-parser 3.0.2 (npm, with its encoder notepack.io 2.2.0): a view of a part of a buffer arrives as the
# whole buffer.
#
# Expected: the three bytes of the view arrive, as with the default parser. `subarray` is how programs pass on a part of
#           a recording or a file without a copy.
# Actual:   the encoder writes `value.buffer`, from its first byte to its last. A Buffer is handled correctly.
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

const bytes = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]);
const values = [bytes.subarray(2, 5), Buffer.from(bytes).subarray(2, 5)];
for (const [name, options] of [['default parser', {}], ['socket.io-msgpack-parser', { parser }]]) {
  const http = createServer().listen(0, '127.0.0.1');
  const server = new Server(http, options);
  await once(http, 'listening');
  server.on('connection', (socket) => socket.on('value', (value, answer) => answer(Buffer.from(value).toJSON().data.join())));
  const client = io(`http://127.0.0.1:${http.address().port}`, { transports: ['websocket'], ...options });
  for (const value of values) {
    const answer = await client.timeout(5_000).emitWithAck('value', value);
    console.log(`${name}: ${value.constructor.name} [${[...value]}] arrived as [${answer}]`);
  }
  client.close();
  await server.close();
}
JS
cat >EXPECTED <<'TXT'
default parser: Uint8Array [3,4,5] arrived as [3,4,5]
default parser: Buffer [3,4,5] arrived as [3,4,5]
socket.io-msgpack-parser: Uint8Array [3,4,5] arrived as [1,2,3,4,5,6,7,8]
socket.io-msgpack-parser: Buffer [3,4,5] arrived as [3,4,5]
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
