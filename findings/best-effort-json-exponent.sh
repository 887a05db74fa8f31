#!/usr/bin/env bash
# best-effort-json-parser 1.5.1 (npm): in JSON that is still arriving, a number with an exponent becomes two values.
#
# Expected: the part of a document that has arrived is read as in the complete document: 2.5e-10 is one number.
# Actual:   the number ends at the "e". In an array the rest follows as a text of its own, so that all later indexes move
#           by one; in an object the member has another value. Once the document is complete, the result is right.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund best-effort-json-parser@1.5.1
cat >try.mjs <<'JS'
import { parse } from 'best-effort-json-parser';

for (const complete of ['[2.5e-10,7,true]', '{"mass":6e24,"moons":1}']) {
  for (const received of [complete.slice(0, -2), complete]) {
    console.log(`${received} -> ${JSON.stringify(parse(received))}`);
  }
}
JS
cat >EXPECTED <<'TXT'
[2.5e-10,7,tru -> [2.5,"e-10",7,true]
[2.5e-10,7,true] -> [2.5e-10,7,true]
{"mass":6e24,"moons": -> {"mass":6}
{"mass":6e24,"moons":1} -> {"mass":6e+24,"moons":1}
TXT
node try.mjs 2>/dev/null | tee seen
diff EXPECTED seen && echo 'unchanged'
