#!/usr/bin/env bash
# rfc6902 5.4.0 (npm): a patch inside a member called `constructor` changes the object around it.
#
# Expected: `/constructor/name` addresses `name` of the own member `constructor` (racing teams are constructors, so
#           are building firms), or the operation is refused as `__proto__` is elsewhere.
# Actual:   a step through `constructor` or `prototype` is skipped, as the change log says, so that
#           `/constructor/name` and `/name` are the same. The patch reports success, overwrites another member, and
#           the target keeps its value.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund rfc6902@5.4.0
cat >try.mjs <<'JS'
import { applyPatch } from 'rfc6902';

const season = { name: '2026', constructor: { name: 'Ferrari' } };
console.log('before:', JSON.stringify(season));
const errors = applyPatch(season, [{ op: 'replace', path: '/constructor/name', value: 'McLaren' }]);
console.log('errors:', JSON.stringify(errors));
console.log('after: ', JSON.stringify(season));
JS
cat >EXPECTED <<'TXT'
before: {"name":"2026","constructor":{"name":"Ferrari"}}
errors: [null]
after:  {"name":"McLaren","constructor":{"name":"Ferrari"}}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
