#!/usr/bin/env bash
# immutable-json-patch 6.0.3 (npm): operations on a member that does not exist succeed and do nothing.
#
# Expected: "the target location MUST exist" for `remove` and `replace` (RFC 6902, sections 4.2 and 4.3), and an index
#           beyond the end of an array is an error (4.1). A receiver that missed a delta notices it at the next one.
# Actual:   `remove` and `replace` are ignored, and an element for index 5 of an array of one is appended. A client
#           whose state has drifted goes on without an error.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund immutable-json-patch@6.0.3
cat >try.mjs <<'JS'
import { immutableJSONPatch } from 'immutable-json-patch';

const document = { items: ['first'] };
const operations = [
  { op: 'remove', path: '/total' },
  { op: 'replace', path: '/total', value: 1 },
  { op: 'add', path: '/items/5', value: 'sixth' },
];
for (const operation of operations) {
  try {
    console.log(JSON.stringify(operation), '->', JSON.stringify(immutableJSONPatch(document, [operation])));
  } catch (error) {
    console.log(JSON.stringify(operation), '->', error.message);
  }
}
JS
cat >EXPECTED <<'TXT'
{"op":"remove","path":"/total"} -> {"items":["first"]}
{"op":"replace","path":"/total","value":1} -> {"items":["first"]}
{"op":"add","path":"/items/5","value":"sixth"} -> {"items":["first","sixth"]}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
