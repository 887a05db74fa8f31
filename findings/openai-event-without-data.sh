#!/usr/bin/env bash
# openai 7.59.0 (npm): a named server-sent event without data ends a chat completion stream with a SyntaxError.
#
# Expected: the event stream format (HTML standard, section "Server-sent events", dispatch step 2) discards an event whose data
#           is empty, so that "event: ping" is a keep-alive like a comment, which the client does ignore.
# Actual:   the client parses the empty data as JSON and throws; the text after it is lost.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund openai@7.59.0
cat >try.mjs <<'JS'
import { createServer } from 'node:http';
import OpenAI from 'openai';

const chunk = (content) => {
  const choices = [{ index: 0, delta: { content }, finish_reason: null }];
  return `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices })}\n\n`;
};
const keepAlives = { 'a comment       ': ': keep-alive\n\n', 'an event without data': 'event: ping\n\n' };
let keepAlive = '';
const server = createServer((request, response) => {
  request.resume();
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.end(`${chunk('Hello ')}${keepAlive}${chunk('world')}data: [DONE]\n\n`);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const client = new OpenAI({ apiKey: 'none', baseURL: `http://127.0.0.1:${server.address().port}/v1`, maxRetries: 0 });
for (const [name, text] of Object.entries(keepAlives)) {
  keepAlive = text;
  let received = '';
  try {
    const stream = await client.chat.completions.create({ model: 'm', messages: [], stream: true });
    for await (const { choices } of stream) received += choices[0].delta.content;
    console.log(name, JSON.stringify(received));
  } catch (error) {
    console.log(name, JSON.stringify(received), error.name);
  }
}
server.close();
JS
cat >EXPECTED <<'TXT'
a comment        "Hello world"
an event without data "Hello " SyntaxError
TXT
node try.mjs 2>/dev/null | tee seen
diff EXPECTED seen && echo 'unchanged'
