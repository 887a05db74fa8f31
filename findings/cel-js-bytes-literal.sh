#!/usr/bin/env bash
# @marcbachmann/cel-js 8.0.0 (npm): a bytes literal is not the UTF-8 form of its text.
#
# Expected: `b"ÿ"` is the UTF-8 form of the letter, two bytes, and equals `bytes("ÿ")` (CEL specification, "String and
#           Bytes Values": the literal `b"ÿ"` is the bytes 195 and 191).
# Actual:   Each character becomes one byte, the low byte of its code: `b"ÿ"` is 255, and text of other scripts loses
#           information, so that different literals are equal.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @marcbachmann/cel-js@8.0.0
cat >try.mjs <<'JS'
import { evaluate } from '@marcbachmann/cel-js';

for (const expression of [
  'b"abc" == bytes("abc")',
  'size(bytes("ÿ"))',
  'size(b"ÿ")',
  'b"ÿ" == bytes("ÿ")',
  'b"\\303\\277" == bytes("ÿ")',
  'b"Ж" == b"\\x16"',
  'bytes("Ж") == bytes("\\u0016")',
]) {
  console.log(expression, String(evaluate(expression)));
}
JS
cat >EXPECTED <<'TXT'
b"abc" == bytes("abc") true
size(bytes("ÿ")) 2
size(b"ÿ") 1
b"ÿ" == bytes("ÿ") false
b"\303\277" == bytes("ÿ") true
b"Ж" == b"\x16" true
bytes("Ж") == bytes("\u0016") false
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
