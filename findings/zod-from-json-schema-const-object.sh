#!/usr/bin/env bash
# zod 4.6.7 (npm): a schema with an object or array as `const` or in `enum`, read by `z.fromJSONSchema()`, matches
# nothing.
#
# Expected: `const` and `enum` take any JSON value and compare by value (JSON Schema 2020-12 Validation, sections
#           6.1.2 and 6.1.3), or fromJSONSchema() throws, as it does for keywords that it cannot convert.
# Actual:   the values become literals that are compared by identity, so that no parsed value is ever equal.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund zod@4.6.7
cat >try.mjs <<'JS'
import * as z from 'zod';

for (const [schema, value] of [
  [{ const: 'auto' }, 'auto'],
  [{ const: { mode: 'auto' } }, { mode: 'auto' }],
  [{ enum: ['all', []] }, []],
]) {
  const { success } = z.fromJSONSchema(schema).safeParse(value);
  console.log(`${JSON.stringify(schema)}: ${JSON.stringify(value)} is ${success ? 'accepted' : 'refused'}`);
}
JS
cat >EXPECTED <<'TXT'
{"const":"auto"}: "auto" is accepted
{"const":{"mode":"auto"}}: {"mode":"auto"} is refused
{"enum":["all",[]]}: [] is refused
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
