#!/usr/bin/env bash
# assistant-stream 0.3.57 (npm): text that the AI SDK takes back stays in the message.
#
# Expected: `reset-step` of the AI SDK 7 removes what the current step has streamed so far, so that a repeated step
#           appears once. A decoder that does not know a chunk reports it, as this one reports a chunk that is not
#           valid.
# Actual:   The decoder, described as one for streams of AI SDK 6, ignores the chunk silently: the answer contains the
#           interrupted text and the repeated one.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund assistant-stream@0.3.57 ai@7.0.173
cat >try.mjs <<'JS'
import { AssistantMessageAccumulator, UIMessageStreamDecoder } from 'assistant-stream';
import { readUIMessageStream } from 'ai';

const chunks = [
  { type: 'start', messageId: 'm1' },
  { type: 'start-step' },
  { type: 'text-start', id: 't1' },
  { type: 'text-delta', id: 't1', delta: 'The workload is' },
  { type: 'text-end', id: 't1' },
  { type: 'reset-step' },
  { type: 'text-start', id: 't2' },
  { type: 'text-delta', id: 't2', delta: 'The workload is healthy.' },
  { type: 'text-end', id: 't2' },
  { type: 'finish-step' },
  { type: 'finish', finishReason: 'stop' },
];
const body = `${chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join('')}data: [DONE]\n\n`;
const last = async (stream) => {
  let message;
  for await (message of stream);
  return message;
};
const sdk = await last(readUIMessageStream({ stream: ReadableStream.from(chunks) }));
console.log('ai              ', JSON.stringify(sdk.parts.flatMap(({ text = [] }) => text)));
const decoded = new Response(body).body.pipeThrough(new UIMessageStreamDecoder());
const message = await last(decoded.pipeThrough(new AssistantMessageAccumulator()));
console.log('assistant-stream', JSON.stringify(message.parts.flatMap(({ text = [] }) => text)));
JS
cat >EXPECTED <<'TXT'
ai               ["The workload is healthy."]
assistant-stream ["The workload is","The workload is healthy."]
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
