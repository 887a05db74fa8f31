#!/usr/bin/env bash
# json-canonicalize 3.0.1 (npm): what `toJSON()` returns is not canonicalized.
#
# Expected: RFC 8785 sorts the members of every object (section 3.2.3). `toJSON()` gives the value to serialize, so a
#           value and its JSON text read back have one canonical form, and one hash.
# Actual:   the result of `toJSON()` is serialized as it is. Sender and receiver of a signed record with a Buffer
#           (whose toJSON() returns `type` before `data`) compute different hashes.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund json-canonicalize@3.0.1
cat >try.mjs <<'JS'
import { canonicalize } from 'json-canonicalize';

const record = { id: 1, body: Buffer.from('A') };
console.log('sender:  ', canonicalize(record));
console.log('receiver:', canonicalize(JSON.parse(JSON.stringify(record))));
JS
cat >EXPECTED <<'TXT'
sender:   {"body":{"type":"Buffer","data":[65]},"id":1}
receiver: {"body":{"data":[65],"type":"Buffer"},"id":1}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
