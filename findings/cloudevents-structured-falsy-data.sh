#!/usr/bin/env bash
# cloudevents 10.0.0 (npm): a structured-mode message whose data is 0, false or "" is parsed into an event without data.
#
# Expected: CloudEvents JSON format 1.0.2 section 3.1 allows any JSON value as `data`, so HTTP.toEvent() returns an event
#           whose data is 0, false or "". The batch format of the same package does so.
# Actual:   HTTP.toEvent() drops the three values without an error; `data` is undefined. A meter that counts 0 is lost.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0
cat >try.mjs <<'JS'
import { HTTP } from 'cloudevents';

const event = { specversion: '1.0', id: '1', source: '/meter', type: 'sample' };
for (const data of [7, 0, false, '', []]) {
  const body = JSON.stringify({ ...event, data });
  const single = HTTP.toEvent({ headers: { 'content-type': 'application/cloudevents+json' }, body });
  const [batched] = HTTP.toEvent({ headers: { 'content-type': 'application/cloudevents-batch+json' }, body: `[${body}]` });
  console.log(JSON.stringify(data), 'single:', JSON.stringify(single.data), 'batched:', JSON.stringify(batched.data));
}
JS
cat >EXPECTED <<'TXT'
7 single: 7 batched: 7
0 single: undefined batched: 0
false single: undefined batched: false
"" single: undefined batched: ""
[] single: [] batched: []
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
