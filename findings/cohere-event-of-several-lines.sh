#!/usr/bin/env bash
# cohere-ai 8.1.0 (npm): an event whose JSON is spread over several `data:` lines ends the stream with an error.
#
# Expected: the lines of an event are joined by line feeds before it is used (WHATWG HTML, Server-sent events, 9.2.6),
#           so indented JSON is one event. The clients of OpenAI, Anthropic, Groq and Mistral read it.
# Actual:   each line is parsed as JSON by itself. A proxy or test server that serializes with indentation is
#           unusable.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cohere-ai@8.1.0
cat >try.mjs <<'JS'
import { createServer } from 'node:http';
import { CohereClientV2 } from 'cohere-ai';

const event = { type: 'content-delta', index: 0, delta: { message: { content: { text: 'Hello' } } } };
let indentation;
const server = createServer((request, response) => {
  request.resume();
  const lines = JSON.stringify(event, null, indentation).split('\n');
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.end(`event: content-delta\n${lines.map((line) => `data: ${line}`).join('\n')}\n\n`);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const environment = `http://127.0.0.1:${server.address().port}`;
const client = new CohereClientV2({ token: 'none', environment });
for (indentation of [0, 2]) {
  const name = indentation === 0 ? 'one line:     ' : 'several lines:';
  try {
    const stream = await client.chatStream({ model: 'm', messages: [{ role: 'user', content: 'hi' }] });
    for await (const { delta } of stream) console.log(name, delta.message.content.text);
  } catch (error) {
    console.log(name, error.name);
  }
}
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
one line:      Hello
several lines: SyntaxError
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
