#!/usr/bin/env bash
# @langchain/core 1.4.0 (npm): `parsePartialJson` shows characters of an escape that has not arrived completely.
#
# Expected: the value of a prefix is a prefix of the final value, so that an interface can append what is new: after
#           `{"text":"caf\u00e` the text is "caf", as the parsers in ai and openai return it.
# Actual:   the backslash is dropped and the rest is shown ("cafu00e"), or a backslash alone is shown ("caf\"). The next
#           piece takes it back. A model that escapes what is not ASCII does this at every such character.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @langchain/core@1.4.0 partial-json@0.1.7
cat >try.mjs <<'JS'
import { parsePartialJson } from '@langchain/core/output_parsers';
import { parse } from 'partial-json';

const complete = '{"text":"caf\\u00e9 \\"ok\\""}';
for (const length of [12, 13, 14, 17, 18, 20, 21]) {
  const received = complete.slice(0, length);
  console.log(`${received}: langchain ${parsePartialJson(received).text}, partial-json ${parse(received).text}`);
}
JS
cat >EXPECTED <<'TXT'
{"text":"caf: langchain caf, partial-json caf
{"text":"caf\: langchain caf\, partial-json caf
{"text":"caf\u: langchain cafu, partial-json caf
{"text":"caf\u00e: langchain cafu00e, partial-json caf
{"text":"caf\u00e9: langchain café, partial-json café
{"text":"caf\u00e9 \: langchain café \, partial-json café 
{"text":"caf\u00e9 \": langchain café ", partial-json café "
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
