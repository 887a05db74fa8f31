#!/usr/bin/env bash
# http-message-signatures 1.0.6 (npm): `@query-param` leaves five characters unencoded, so signatures do not verify.
#
# Expected: The value is encoded with the percent-encode set of application/x-www-form-urlencoded (RFC 9421 section
#           2.2.8), which contains `! ' ( ) ~` (URL standard): `it's` is signed as `it%27s`.
# Actual:   encodeURIComponent() encodes none of the five: the signature base has `it's`, and a signer or verifier
#           after the RFC has another base.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund http-message-signatures@1.0.6
cat >try.mjs <<'JS'
import { httpbis } from 'http-message-signatures';

const url = new URL('https://api.example.com/search');
url.search = new URLSearchParams({ space: 'a b', apostrophe: "it's", tilde: '~me', brackets: '(x)', mark: 'hi!' });
for (const name of url.searchParams.keys()) {
  const fields = [`"@query-param";name="${name}"`];
  console.log(httpbis.formatSignatureBase(httpbis.createSignatureBase({ fields }, { method: 'GET', url, headers: {} })));
}
JS
cat >EXPECTED <<'TXT'
"@query-param";name="space": a%20b
"@query-param";name="apostrophe": it's
"@query-param";name="tilde": ~me
"@query-param";name="brackets": (x)
"@query-param";name="mark": hi!
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
