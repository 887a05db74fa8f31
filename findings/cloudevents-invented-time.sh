#!/usr/bin/env bash
# cloudevents 10.0.0 (npm): parsing an event that has no `time` adds one, the moment of parsing.
#
# Expected: `time` is optional (CloudEvents 1.0.2, "time"); an event that was sent without it stays without it, so that a
#           consumer can tell "not stated" from "stated", and the same bytes parse to equal events.
# Actual:   HTTP.toEvent() sets `time` to the current time, in structured, batch and binary mode; two parses of the same bytes differ.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0
cat >try.mjs <<'JS'
import { HTTP } from 'cloudevents';

const attributes = { specversion: '1.0', id: '1', source: '/s', type: 't' };
const binary = Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce-${name}`, value]));
const messages = {
  structured: { headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify(attributes) },
  batch: { headers: { 'content-type': 'application/cloudevents-batch+json' }, body: JSON.stringify([attributes]) },
  binary: { headers: { ...binary, 'content-type': 'text/plain' }, body: 'x' },
};
for (const [mode, message] of Object.entries(messages)) {
  const before = Date.now();
  const [event] = [HTTP.toEvent(message)].flat();
  const invented = Date.parse(event.time) >= before - 1 && Date.parse(event.time) <= Date.now() + 1;
  console.log(mode, 'time in the message:', 'time' in attributes, 'time in the event is the time of parsing:', invented);
}
JS
cat >EXPECTED <<'TXT'
structured time in the message: false time in the event is the time of parsing: true
batch time in the message: false time in the event is the time of parsing: true
binary time in the message: false time in the event is the time of parsing: true
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
