#!/usr/bin/env bash
# zod 4.6.7 (npm): `z.fromJSONSchema()` ignores a required name that `properties` does not list.
#
# Expected: {"a":1} is refused: `required` and `properties` are independent of each other (JSON Schema 2020-12
#           Validation, section 6.5.3), and `allOf`/`anyOf` with `required` alone is the usual way to write "one of
#           these". fromJSONSchema() throws for keywords that it cannot convert.
# Actual:   the requirement is dropped without an error, and the schema admits what it was written to refuse.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund zod@4.6.7
cat >try.mjs <<'JS'
import * as z from 'zod';

const schemas = [
  { type: 'object', properties: { a: {} }, required: ['a', 'b'] },
  { type: 'object', properties: { a: {}, b: {} }, allOf: [{ required: ['b'] }] },
  { type: 'object', properties: { a: {}, b: {}, c: {} }, anyOf: [{ required: ['b'] }, { required: ['c'] }] },
];
for (const schema of schemas) {
  console.log(JSON.stringify(schema));
  console.log(`  {"a":1} is ${z.fromJSONSchema(schema).safeParse({ a: 1 }).success ? 'accepted' : 'refused'}`);
}
JS
cat >EXPECTED <<'TXT'
{"type":"object","properties":{"a":{}},"required":["a","b"]}
  {"a":1} is accepted
{"type":"object","properties":{"a":{},"b":{}},"allOf":[{"required":["b"]}]}
  {"a":1} is accepted
{"type":"object","properties":{"a":{},"b":{},"c":{}},"anyOf":[{"required":["b"]},{"required":["c"]}]}
  {"a":1} is accepted
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
