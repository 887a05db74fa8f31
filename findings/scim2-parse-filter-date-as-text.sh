#!/usr/bin/env bash
# scim2-parse-filter 0.2.10 (npm): a user who changed half a second later does not count as changed.
#
# Expected: Date-times are compared by time (RFC 7644 section 3.4.2.2, "gt": "a chronological comparison"), so that
#           "changed since the last synchronization" finds all later changes.
# Actual:   They are compared as text: a fraction of a second sorts before the `Z` of a time without one, and an
#           offset is ignored. The change is never synchronized.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund scim2-parse-filter@0.2.10
cat >try.mjs <<'JS'
import scim from 'scim2-parse-filter';

const changedSince = scim.filter(scim.parse('meta.lastModified gt "2026-11-30T09:00:00Z"'));
for (const lastModified of [
  '2026-11-30T09:00:01Z',
  '2026-11-30T09:00:00.500Z',
  '2026-11-30T08:30:00-01:00',
  '2026-11-30T09:30:00+01:00',
]) {
  console.log(lastModified, changedSince({ meta: { lastModified } }), Date.parse(lastModified) > Date.parse('2026-11-30T09:00:00Z'));
}
JS
cat >EXPECTED <<'TXT'
2026-11-30T09:00:01Z true true
2026-11-30T09:00:00.500Z false true
2026-11-30T08:30:00-01:00 false true
2026-11-30T09:30:00+01:00 true false
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
