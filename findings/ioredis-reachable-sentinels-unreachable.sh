#!/usr/bin/env bash
# ioredis 6.0.0 (npm): while a master is down, every fourth attempt to connect through three Sentinels that answer says
# that all Sentinels are unreachable.
#
# Expected: each attempt asks a Sentinel, connects to the address that it names, and reports that this address refused
#           the connection (ECONNREFUSED), for as long as the master is down.
# Actual:   the position in the list of Sentinels is kept after such an attempt. After as many attempts as there are
#           Sentinels, one attempt asks none of them and reports "All sentinels are unreachable", although each answers.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below. The Sentinels are small servers that answer each command
# with the address of a port on which nothing listens.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund ioredis@6.0.0
cat >try.cjs <<'JS'
const { createServer } = require('node:net');
const { Redis } = require('ioredis');

const text = (value) => `$${value.length}\r\n${value}\r\n`;
const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));

(async () => {
  const unused = createServer();
  const masterPort = String(await listen(unused));
  await new Promise((resolve) => unused.close(resolve));
  let asked = 0;
  const sentinel = () =>
    createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        // A pipeline may hold several commands: each begins with the number of its words.
        for (const command of String(data).split(/(?=^\*\d+\r$)/m)) {
          if (/get-master-addr-by-name/i.test(command)) {
            asked += 1;
            socket.write(`*2\r\n${text('127.0.0.1')}${text(masterPort)}`);
          } else if (/sentinels/i.test(command)) socket.write('*0\r\n');
          else socket.write('+OK\r\n');
        }
      });
    });
  const sentinels = [];
  for (let at = 0; at < 3; at++) sentinels.push({ host: '127.0.0.1', port: await listen(sentinel()) });
  const redis = new Redis({ sentinels, name: 'main', retryStrategy: () => 10, sentinelRetryStrategy: () => 10 });
  let attempts = 0;
  redis.on('error', (error) => {
    attempts += 1;
    if (attempts > 8) process.exit(0);
    const reported = error.message.startsWith('All sentinels are unreachable') ? 'all Sentinels unreachable' : error.code;
    console.log(`attempt ${attempts}: ${reported}, questions answered so far: ${asked}`);
  });
})();
JS
cat >EXPECTED <<'TXT'
attempt 1: ECONNREFUSED, questions answered so far: 1
attempt 2: ECONNREFUSED, questions answered so far: 2
attempt 3: ECONNREFUSED, questions answered so far: 3
attempt 4: all Sentinels unreachable, questions answered so far: 3
attempt 5: ECONNREFUSED, questions answered so far: 4
attempt 6: ECONNREFUSED, questions answered so far: 5
attempt 7: ECONNREFUSED, questions answered so far: 6
attempt 8: all Sentinels unreachable, questions answered so far: 6
TXT
node try.cjs | tee seen
diff EXPECTED seen && echo 'unchanged'
