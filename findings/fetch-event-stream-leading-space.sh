#!/usr/bin/env bash
# fetch-event-stream 0.1.6 (npm): words that a model streams as plain text run together.
#
# Expected: one space after the colon is removed and no more (WHATWG HTML, Server-sent events, 9.2.6), so `data:
#           world` is the token " world". eventsource 5.1.5 and eventsource-client 1.2.0 read it so.
# Actual:   all white space before the value is removed. Tokens that begin with a space, which most words of a model
#           do, lose it; an indented line of code loses its indentation.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund fetch-event-stream@0.1.6
cat >try.mjs <<'JS'
import { events } from 'fetch-event-stream';

const tokens = ['Hello', ' world', ' of', ' agents'];
const body = tokens.map((token) => `data: ${token}\n\n`).join('');
let text = '';
for await (const { data } of events(new Response(body))) text += data;
console.log('sent:    ', JSON.stringify(tokens.join('')));
console.log('received:', JSON.stringify(text));
JS
cat >EXPECTED <<'TXT'
sent:     "Hello world of agents"
received: "Helloworldofagents"
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
