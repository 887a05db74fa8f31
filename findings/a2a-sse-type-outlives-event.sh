#!/usr/bin/env bash
# @a2a-js/sdk 1.3.0 (npm): `parseSseStream` gives the type of an event without data to the next event.
#
# Expected: the HTML standard (9.2.6, "dispatch the event") empties the type buffer at each blank line, also when the
#           data buffer is empty and nothing is dispatched. A keep-alive of the form "event: ping" and a blank line
#           therefore changes nothing, as eventsource-parser shows.
# Actual:   the type stays set: the next event, which names no type, is reported as "ping".
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @a2a-js/sdk@1.3.0 eventsource-parser@4.1.3
cat >try.mjs <<'JS'
import { parseSseStream } from '@a2a-js/sdk';
import { createParser } from 'eventsource-parser';

const text = 'event: ping\n\ndata: first\n\nevent: ping\ndata: second\n\ndata: third\n\n';
const print = (parser, data, type) => console.log(`${parser}: ${data} has the type ${type}`);

for await (const { data, type } of parseSseStream(new Response(text))) print('@a2a-js/sdk', data, type);
createParser({ onEvent: ({ data, event = 'message' }) => print('eventsource-parser', data, event) }).feed(text);
JS
cat >EXPECTED <<'TXT'
@a2a-js/sdk: first has the type ping
@a2a-js/sdk: second has the type ping
@a2a-js/sdk: third has the type message
eventsource-parser: first has the type message
eventsource-parser: second has the type ping
eventsource-parser: third has the type message
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
