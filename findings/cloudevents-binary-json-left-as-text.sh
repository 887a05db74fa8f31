#!/usr/bin/env bash
# cloudevents 10.0.0 (npm): JSON data of a binary-mode message stays a string unless its type is exactly "application/json".
#
# Expected: with datacontenttype application/json plus a parameter, or a type with the suffix +json (RFC 6839), `data` is the
#           parsed value: the specification calls these JSON ("datacontenttype", and JSON format section 3.1).
# Actual:   the data is the unparsed text, so that event.data.units is undefined. A bare number stays text even under application/json.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0
cat >try.mjs <<'JS'
import { HTTP } from 'cloudevents';

const headers = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't' };
const messages = [
  ['application/json', '{"units":3}'],
  ['application/json; charset=utf-8', '{"units":3}'],
  ['application/json;charset=utf-8', '{"units":3}'],
  ['application/vnd.meter+json', '{"units":3}'],
  ['application/json', '3'],
];
for (const [type, body] of messages) {
  const { data } = HTTP.toEvent({ headers: { ...headers, 'content-type': type }, body });
  console.log(type, body, '->', typeof data);
}
JS
cat >EXPECTED <<'TXT'
application/json {"units":3} -> object
application/json; charset=utf-8 {"units":3} -> object
application/json;charset=utf-8 {"units":3} -> string
application/vnd.meter+json {"units":3} -> string
application/json 3 -> string
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
