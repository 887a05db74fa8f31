#!/usr/bin/env bash
# assistant-stream 0.3.57 (npm): each update of a data part is a part of its own.
#
# Expected: A data part of the AI SDK that has the `id` and the type of an earlier one replaces it (AI SDK, "Streaming
#           Custom Data": reconciliation), so that a progress bar is one part.
# Actual:   The id is ignored and lost: the message of assistant-ui contains all states of the progress.
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
  { type: 'data-progress', id: 'p1', data: { percent: 10 } },
  { type: 'data-progress', id: 'p1', data: { percent: 90 } },
  { type: 'finish' },
];
const body = `${chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join('')}data: [DONE]\n\n`;
const last = async (stream) => {
  let message;
  for await (message of stream);
  return message;
};
const sdk = await last(readUIMessageStream({ stream: ReadableStream.from(chunks) }));
console.log('ai              ', JSON.stringify(sdk.parts));
const decoded = new Response(body).body.pipeThrough(new UIMessageStreamDecoder());
const message = await last(decoded.pipeThrough(new AssistantMessageAccumulator()));
console.log('assistant-stream', JSON.stringify(message.metadata.unstable_data));
JS
cat >EXPECTED <<'TXT'
ai               [{"type":"data-progress","id":"p1","data":{"percent":90}}]
assistant-stream [{"name":"progress","data":{"percent":10}},{"name":"progress","data":{"percent":90}}]
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
