#!/usr/bin/env bash
# structured-headers 2.1.0 (npm): a text of two lines does not survive as a Display String.
#
# Expected: Each byte below 0x20 becomes a percent sign and two hexadecimal digits, a line feed `%0a` (RFC 9651
#           section 4.1.11).
# Actual:   Bytes below 0x10 get one digit. The parser of the same package takes the next character for the second
#           one: U+0002 and "1" arrive as "!", and two lines not at all (ParseError).
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund structured-headers@2.1.0
cat >try.mjs <<'JS'
import { DisplayString, parseItem, serializeItem } from 'structured-headers';

for (const text of ['two words', 'caf\u00e9', 'two\u001fparts', 'two\nlines', 'two\n', '\u00021']) {
  const header = serializeItem(new DisplayString(text));
  try {
    console.log(JSON.stringify(text), header, JSON.stringify(parseItem(header)[0].toString()));
  } catch (error) {
    console.log(JSON.stringify(text), header, error.constructor.name);
  }
}
JS
cat >EXPECTED <<'TXT'
"two words" %"two words" "two words"
"café" %"caf%c3%a9" "café"
"two\u001fparts" %"two%1fparts" "two\u001fparts"
"two\nlines" %"two%alines" ParseError
"two\n" %"two%a" ParseError
"\u00021" %"%21" "!"
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
