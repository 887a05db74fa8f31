#!/usr/bin/env bash
# engine.io 6.6.13 (npm): since this patch release handleRequest() attaches to the request only after it has returned,
# if the server has a middleware or the option `cors`.
#
# Expected: as in 6.6.11 and before, the listener that decodes a polling body is attached when handleRequest() returns, so that a
#           listener that the caller adds next to "end" runs after the packets were decoded (to measure or to count them).
# Actual:   middlewares run in a promise chain; the listener is attached in a microtask. The caller's listener runs first and
#           sees no packet. Without middleware and `cors` both versions behave the same.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund engine-before@npm:engine.io@6.6.11 engine-after@npm:engine.io@6.6.13
cat >try.cjs <<'JS'
const { createServer } = require('node:http');

async function packetsSeenAtEnd(name, options) {
  const { Server } = require(name);
  const engine = new Server(options);
  let packets = 0;
  engine.on('connection', (socket) => socket.on('packet', () => (packets += 1)));
  let seen;
  const server = createServer((request, response) => {
    engine.handleRequest(request, response);
    if (request.method === 'POST') request.on('end', () => (seen = packets));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}/?EIO=4&transport=polling`;
  const { sid } = JSON.parse((await (await fetch(url)).text()).slice(1));
  await (await fetch(`${url}&sid=${sid}`, { method: 'POST', body: '4hello', headers: { 'content-type': 'text/plain' } })).text();
  engine.close();
  server.closeAllConnections();
  server.close();
  return seen;
}

(async () => {
  for (const [name, version] of [['engine-before', '6.6.11'], ['engine-after', '6.6.13']]) {
    for (const cors of [undefined, { origin: 'http://localhost' }]) {
      const seen = await packetsSeenAtEnd(name, { transports: ['polling'], cors });
      console.log(version, cors ? 'with cors   ' : 'without cors', 'packets decoded when the next listener runs:', seen);
    }
  }
})();
JS
cat >EXPECTED <<'TXT'
6.6.11 without cors packets decoded when the next listener runs: 1
6.6.11 with cors    packets decoded when the next listener runs: 1
6.6.13 without cors packets decoded when the next listener runs: 1
6.6.13 with cors    packets decoded when the next listener runs: 0
TXT
node try.cjs | tee seen
diff EXPECTED seen && echo 'unchanged'
