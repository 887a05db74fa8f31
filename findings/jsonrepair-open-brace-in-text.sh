#!/usr/bin/env bash
# jsonrepair 3.15.0 (npm): valid JSON with an opening brace in a text is refused.
#
# Expected: Valid JSON needs no repair and comes back as it is, as with version 3.14.0. Arguments of tools that carry
#           code often have a text with an opening brace only, also because a stream is cut in pieces.
# Actual:   An object whose member is a text with `{` and no `}` after it throws JSONRepairError "Unexpected
#           character". `[` and a pair `{}` are no problem.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund jsonrepair@3.15.0
cat >try.mjs <<'JS'
import { jsonrepair } from 'jsonrepair';

for (const json of [
  '{"code":"["}',
  '{"code":"if (ok) { run() }"}',
  '["if (ok) {"]',
  '{"code":"if (ok) {"}',
  '{"name":"edit","arguments":{"line":1,"text":"{"}}',
]) {
  JSON.parse(json);
  try {
    console.log(json, jsonrepair(json) === json ? 'unchanged' : 'changed');
  } catch (error) {
    console.log(json, error.constructor.name);
  }
}
JS
cat >EXPECTED <<'TXT'
{"code":"["} unchanged
{"code":"if (ok) { run() }"} unchanged
["if (ok) {"] unchanged
{"code":"if (ok) {"} JSONRepairError
{"name":"edit","arguments":{"line":1,"text":"{"}} JSONRepairError
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
