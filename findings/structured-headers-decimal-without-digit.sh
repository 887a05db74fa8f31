#!/usr/bin/env bash
# structured-headers 2.1.0 (npm): a number close to an integer becomes a decimal that no parser accepts.
#
# Expected: 1.0004 is a decimal and is rounded to three digits: `1.0` (RFC 9651 section 4.1.5: at least one digit
#           follows the point).
# Actual:   The item is `1.`, which the parser of the same package refuses. 0.0004 becomes `0.`.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund structured-headers@2.1.0
cat >try.mjs <<'JS'
import { parseItem, serializeItem } from 'structured-headers';

for (const number of [1.5, 1.0006, 1.0004, 0.0004, 59.9999]) {
  const text = serializeItem(number);
  try {
    console.log(number, text, parseItem(text)[0]);
  } catch (error) {
    console.log(number, text, error.constructor.name);
  }
}
JS
cat >EXPECTED <<'TXT'
1.5 1.5 1.5
1.0006 1.001 1.001
1.0004 1. ParseError
0.0004 0. ParseError
59.9999 60. ParseError
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
