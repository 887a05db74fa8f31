#!/usr/bin/env bash
# @a2a-js/sdk 1.3.0 (npm): a data part whose value is JSON null becomes a part without content.
#
# Expected: `Part.data` is a google.protobuf.Value. The JSON mapping of Protocol Buffers says that null is a value of that
#           type ("null" is its null_value), so {"data": null} stays {"data": null}. A tool that returns null does this.
# Actual:   reading drops the member, as for a field that is not set, and the part is written as {}: a receiver finds a
#           part that holds none of text, raw, url and data. 0, false, "" and [] are kept; so is null inside an object.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @a2a-js/sdk@1.3.0
cat >try.mjs <<'JS'
import { Part } from '@a2a-js/sdk';

for (const data of [null, 0, false, '', [], { value: null }]) {
  const sent = { data };
  const part = Part.fromJSON(sent);
  console.log(`${JSON.stringify(sent)} -> content ${part.content?.$case}, written as ${JSON.stringify(Part.toJSON(part))}`);
}
JS
cat >EXPECTED <<'TXT'
{"data":null} -> content undefined, written as {}
{"data":0} -> content data, written as {"data":0}
{"data":false} -> content data, written as {"data":false}
{"data":""} -> content data, written as {"data":""}
{"data":[]} -> content data, written as {"data":[]}
{"data":{"value":null}} -> content data, written as {"data":{"value":null}}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
