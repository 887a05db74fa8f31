#!/usr/bin/env bash
# re2js 2.10.0 (npm): `translateRegExp` leaves an escaped surrogate pair as two code points, which match nothing.
#
# Expected: `\ud83d\ude00` in an ECMAScript expression with the flag `u` is one code point (ECMA-262, section 22.2.1,
#           RegExpUnicodeEscapeSequence). JSON Schemas written by tools that print ASCII contain such pairs. The
#           translation gives the pattern for that code point, as it does for `\u{1F600}`.
# Actual:   each half becomes a code point of its own. The pattern compiles and never matches; in a class, the range
#           `[\ud83d\ude00-\ud83d\ude4f]` is refused, because its halves are read as a range in the wrong order.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund re2js@2.10.0
cat >try.mjs <<'JS'
import { RE2JS } from 're2js';

for (const source of ['\\u{1F600}', '\\ud83d\\ude00', '[\\u{1F600}-\\u{1F64F}]', '[\\ud83d\\ude00-\\ud83d\\ude4f]']) {
  const ecmascript = new RegExp(source, 'u').test('\u{1F600}');
  let re2;
  try {
    re2 = RE2JS.compile(RE2JS.translateRegExp(source)).matcher('\u{1F600}').find();
  } catch (error) {
    re2 = error.message;
  }
  console.log(`${source}: ECMAScript ${ecmascript}, re2js ${re2}`);
}
JS
cat >EXPECTED <<'TXT'
\u{1F600}: ECMAScript true, re2js true
\ud83d\ude00: ECMAScript true, re2js false
[\u{1F600}-\u{1F64F}]: ECMAScript true, re2js true
[\ud83d\ude00-\ud83d\ude4f]: ECMAScript true, re2js error parsing regexp: invalid character class range: `\x{de00}-\x{d83d}`
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
