#!/usr/bin/env bash
# immutable-json-patch 6.0.3 (npm): a `test` operation fails if the members of an object come in another order.
#
# Expected: objects are equal if they have the same members with equal values (RFC 6902, section 4.6); JSON objects
#           have no order. fast-json-patch accepts the same patch.
# Actual:   the texts of both values are compared, so the patch is refused after a peer serialized the object
#           differently (a round trip through PostgreSQL's jsonb or through a protobuf Struct is enough).
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund immutable-json-patch@6.0.3
cat >try.mjs <<'JS'
import { immutableJSONPatch } from 'immutable-json-patch';

const document = { user: { id: 7, name: 'Ada' }, seen: false };
for (const value of [{ id: 7, name: 'Ada' }, { name: 'Ada', id: 7 }]) {
  const patch = [{ op: 'test', path: '/user', value }, { op: 'replace', path: '/seen', value: true }];
  try {
    console.log(JSON.stringify(value), '->', JSON.stringify(immutableJSONPatch(document, patch)));
  } catch (error) {
    console.log(JSON.stringify(value), '->', error.message);
  }
}
JS
cat >EXPECTED <<'TXT'
{"id":7,"name":"Ada"} -> {"user":{"id":7,"name":"Ada"},"seen":true}
{"name":"Ada","id":7} -> Test failed, value differs (path: "/user")
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
