#!/usr/bin/env bash
# re2js 2.10.0 (npm): `translateRegExp` turns the named back reference of ECMAScript into literal text.
#
# Expected: RE2 has no back references, so `(?<quote>["'])x\k<quote>` is refused, as `(["'])x\1` is: the author learns
#           that the pattern needs another engine.
# Actual:   the group is translated to `(?P<quote>`, and `\k<quote>` loses its backslash. The result compiles, does not
#           match what the pattern describes, and matches the text "k<quote>" instead.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund re2js@2.10.0
cat >try.mjs <<'JS'
import { RE2JS } from 're2js';

for (const source of ['^(["\'])x\\1$', '^(?<quote>["\'])x\\k<quote>$']) {
  const translated = RE2JS.translateRegExp(source);
  console.log(`${source} becomes ${translated}`);
  for (const text of ["'x'", "'xk<quote>"]) {
    const ecmascript = new RegExp(source, 'u').test(text);
    let re2;
    try {
      re2 = RE2JS.compile(translated).matcher(text).find();
    } catch (error) {
      re2 = error.message;
    }
    console.log(`  ${text}: ECMAScript ${ecmascript}, re2js ${re2}`);
  }
}
JS
cat >EXPECTED <<'TXT'
^(["'])x\1$ becomes ^(["'])x\1$
  'x': ECMAScript true, re2js error parsing regexp: invalid escape sequence: `\1`
  'xk<quote>: ECMAScript false, re2js error parsing regexp: invalid escape sequence: `\1`
^(?<quote>["'])x\k<quote>$ becomes ^(?P<quote>["'])xk<quote>$
  'x': ECMAScript true, re2js false
  'xk<quote>: ECMAScript false, re2js true
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
