#!/usr/bin/env bash
# @tanstack/ai-client 0.33.2 (npm): the answer of an AG-UI server that sends chunk events is empty.
#
# Expected: `TEXT_MESSAGE_CHUNK` and `TOOL_CALL_CHUNK` are events of AG-UI and members of the EventType of the
#           package. A client expands them to start, content and end (AG-UI, "Events": "Convenience event"), as
#           `@ag-ui/client` does.
# Actual:   They are ignored, without an error: the run succeeds and has no message.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @tanstack/ai-client@0.33.2 @tanstack/ai@0.58.0
cat >try.mjs <<'JS'
import { createServer } from 'node:http';
import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client';

const messageId = 'm1';
const toolCallId = 't1';
const runs = {
  'start, content, end': [
    { type: 'TEXT_MESSAGE_START', messageId, role: 'assistant' },
    { type: 'TEXT_MESSAGE_CONTENT', messageId, delta: 'Hello' },
    { type: 'TEXT_MESSAGE_END', messageId },
  ],
  'text chunk': [{ type: 'TEXT_MESSAGE_CHUNK', messageId, role: 'assistant', delta: 'Hello' }],
  'tool call chunk': [{ type: 'TOOL_CALL_CHUNK', toolCallId, toolCallName: 'search', delta: '{"text":"x"}' }],
};
let events = [];
const server = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  const { threadId, runId } = JSON.parse(body);
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const run = [{ type: 'RUN_STARTED', threadId, runId }, ...events, { type: 'RUN_FINISHED', threadId, runId }];
  response.end(run.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(''));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `http://127.0.0.1:${server.address().port}/`;
for (const [name, list] of Object.entries(runs)) {
  events = list;
  let error = 'no error';
  const client = new ChatClient({ connection: fetchServerSentEvents(url), onError: ({ message }) => (error = message) });
  await client.sendMessage('hello');
  const parts = client.getMessages().filter(({ role }) => role === 'assistant').flatMap(({ parts }) => parts);
  console.log(`${name}: ${error}, parts: ${parts.map(({ type }) => type).join(', ') || 'none'}`);
}
server.closeAllConnections();
server.close();
process.exit();
JS
cat >EXPECTED <<'TXT'
start, content, end: no error, parts: text
text chunk: no error, parts: none
tool call chunk: no error, parts: none
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
