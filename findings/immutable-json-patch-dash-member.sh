#!/usr/bin/env bash
# immutable-json-patch 6.0.3 (npm): changes of an object's member that is called "-" are lost without an error.
#
# Expected: "-" means the place behind the last element only where the pointer is at an array (RFC 6901, section 4).
#           In an object it is the name of a member, for example in a map of option flags or of table cells.
# Actual:   the patch is applied without an error, and the document stays as it is.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund immutable-json-patch@6.0.3
cat >try.mjs <<'JS'
import { immutableJSONPatch } from 'immutable-json-patch';

const document = { symbols: { '+': 'plus', '-': 'hyphen' } };
for (const name of ['+', '-']) {
  const patch = [{ op: 'replace', path: `/symbols/${name}`, value: 'changed' }];
  console.log(JSON.stringify(patch[0]), '->', JSON.stringify(immutableJSONPatch(document, patch)));
}
JS
cat >EXPECTED <<'TXT'
{"op":"replace","path":"/symbols/+","value":"changed"} -> {"symbols":{"+":"changed","-":"hyphen"}}
{"op":"replace","path":"/symbols/-","value":"changed"} -> {"symbols":{"+":"plus","-":"hyphen"}}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
