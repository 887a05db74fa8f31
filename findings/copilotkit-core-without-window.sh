#!/usr/bin/env bash
# @copilotkit/core 1.75.0 (npm): in Node, Deno or a worker, where `window` does not exist, a core with a `runtimeUrl` sends
# no request, and reports no error.
#
# Expected: "core" is the package without a UI framework, so it asks the runtime for its agents (`GET /info`) wherever
#           `fetch` exists, or reports that it cannot.
# Actual:   the status stays "disconnected", the list of agents empty, and no subscriber is called. With
#           `globalThis.window` set to anything before the construction, the same code connects.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @copilotkit/core@1.75.0
cat >try.mjs <<'JS'
import { once } from 'node:events';
import { createServer } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { CopilotKitCore } from '@copilotkit/core';

let requests = [];
const info = { version: '1', agents: { helper: { name: 'helper', className: 'Agent', description: '' } } };
const server = createServer((request, response) => {
  requests.push(`${request.method} ${request.url}`);
  response.setHeader('content-type', 'application/json').end(JSON.stringify(info));
}).listen(0, '127.0.0.1');
await once(server, 'listening');

for (const name of ['no window', 'a window']) {
  if (name === 'a window') globalThis.window = globalThis;
  requests = [];
  let reports = 0;
  const core = new CopilotKitCore({ runtimeUrl: `http://127.0.0.1:${server.address().port}` });
  core.subscribe({ onError: () => reports++, onRuntimeConnectionStatusChanged: () => reports++ });
  await delay(2_000);
  console.log(
    `${name}: ${core.runtimeConnectionStatus}, agents [${Object.keys(core.agents)}],`,
    `requests [${requests}], reports ${reports}`,
  );
}
process.exit(0);
JS
cat >EXPECTED <<'TXT'
no window: disconnected, agents [], requests [], reports 0
a window: connected, agents [helper], requests [GET /info], reports 1
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
