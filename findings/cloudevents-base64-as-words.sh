#!/usr/bin/env bash
# cloudevents 10.0.0 (npm): binary data of a structured message arrives as a Uint32Array, one 32-bit word per byte.
#
# Expected: data_base64 "aGVsbG8=" is five bytes (JSON format section 3.1.1), so `data` is a Uint8Array or Buffer of five bytes,
#           the type that HTTP.structured() takes for binary data.
# Actual:   a Uint32Array of five elements; its buffer has 20 bytes, so that writing data.buffer to a file, or
#           Buffer.from(data.buffer), gives three zero bytes after each byte.
# Output seen on 2026-11-30, Node 20.20 (little-endian): see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0
cat >try.mjs <<'JS'
import { CloudEvent, HTTP } from 'cloudevents';

const attributes = { specversion: '1.0', id: '1', source: '/s', type: 't' };
const message = HTTP.structured(new CloudEvent({ ...attributes, data: new TextEncoder().encode('hello') }));
console.log('sent    ', JSON.parse(message.body).data_base64);
const { data } = HTTP.toEvent(message);
console.log('received', data.constructor.name, 'elements', data.length, 'bytes', data.byteLength);
JS
cat >EXPECTED <<'TXT'
sent     aGVsbG8=
received Uint32Array elements 5 bytes 20
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
