#!/usr/bin/env bash
# @tanstack/ai-client 0.33.2 (npm): two reasoning messages of AG-UI become one text.
#
# Expected: Each `REASONING_MESSAGE_START` opens a message with its own id, so that there are two thinking parts, as
#           with a STEP_STARTED between the two.
# Actual:   The id is used for the first message only. The text of the second is appended to it without a space, also
#           if the first has ended, and it is shown before an answer that came between the two.
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

const reasoning = (messageId, delta) => [
  { type: 'REASONING_START', messageId },
  { type: 'REASONING_MESSAGE_START', messageId, role: 'reasoning' },
  { type: 'REASONING_MESSAGE_CONTENT', messageId, delta },
  { type: 'REASONING_MESSAGE_END', messageId },
  { type: 'REASONING_END', messageId },
];
const text = (messageId, delta) => [
  { type: 'TEXT_MESSAGE_START', messageId, role: 'assistant' },
  { type: 'TEXT_MESSAGE_CONTENT', messageId, delta },
  { type: 'TEXT_MESSAGE_END', messageId },
];
const runs = {
  'one after the other': [...reasoning('r1', 'I ask the server.'), ...reasoning('r2', 'It is down.'), ...text('m1', 'Down.')],
  'text between them': [...reasoning('r1', 'I ask.'), ...text('m1', 'One moment.'), ...reasoning('r2', 'It is down.')],
  'steps': [
    { type: 'STEP_STARTED', stepName: 'ask' },
    ...reasoning('r1', 'I ask the server.'),
    { type: 'STEP_FINISHED', stepName: 'ask' },
    { type: 'STEP_STARTED', stepName: 'answer' },
    ...reasoning('r2', 'It is down.'),
    { type: 'STEP_FINISHED', stepName: 'answer' },
    ...text('m1', 'Down.'),
  ],
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
  console.log(`${name}: ${error}`);
  for (const { type, content } of parts) console.log(`  ${type}: ${content}`);
}
server.closeAllConnections();
server.close();
process.exit();
JS
cat >EXPECTED <<'TXT'
one after the other: no error
  thinking: I ask the server.It is down.
  text: Down.
text between them: no error
  thinking: I ask.It is down.
  text: One moment.
steps: no error
  thinking: I ask the server.
  thinking: It is down.
  text: Down.
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
