#!/usr/bin/env bash
# currency.js 2.0.4 (npm): the text 1e3 is worth 13.
#
# Expected: "1e3" is a number in JSON and in the text forms of numbers of JavaScript, Python and PostgreSQL: 1000, as
#           the same value without quotes. At least `errorOnInvalid` refuses it. A price of 2.5e-7 dollars per token
#           is written so by `String()`.
# Actual:   The letter is removed and the digits are joined: 13. 2.5e-7 becomes NaN. `errorOnInvalid` reports neither.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund currency.js@2.0.4
cat >try.mjs <<'JS'
import currency from 'currency.js';

for (const value of [1e3, '1000', '1e3', 2.5e-7, '0.00000025', String(2.5e-7)]) {
  console.log(JSON.stringify(value), currency(value, { precision: 8, errorOnInvalid: true }).value);
}
JS
cat >EXPECTED <<'TXT'
1000 1000
"1000" 1000
"1e3" 13
2.5e-7 2.5e-7
"0.00000025" 2.5e-7
"2.5e-7" NaN
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
