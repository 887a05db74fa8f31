#!/usr/bin/env bash
# jsonwebtoken 9.0.3 (npm): `noTimestamp` removes an `iat` that the caller gives, and `exp` still counts from it.
#
# Expected: `noTimestamp` keeps sign() from adding an `iat` of its own; a claim of the payload is signed as given. If
#           the claim is dropped all the same, `expiresIn` counts from now.
# Actual:   the token has no `iat`, without an error; with `expiresIn: 60` its `exp` is 60 seconds after the claim that
#           is gone.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund jsonwebtoken@9.0.3
cat >try.mjs <<'JS'
import jwt from 'jsonwebtoken';

const options = [{}, { noTimestamp: true }, { noTimestamp: true, expiresIn: 60 }];
for (const option of options) {
  const token = jwt.sign({ sub: 'u', iat: 5 }, 'key-for-a-test-of-a-public-package', option);
  console.log(JSON.stringify(option), '->', JSON.stringify(jwt.decode(token)));
}
JS
cat >EXPECTED <<'TXT'
{} -> {"sub":"u","iat":5}
{"noTimestamp":true} -> {"sub":"u"}
{"noTimestamp":true,"expiresIn":60} -> {"sub":"u","exp":65}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
