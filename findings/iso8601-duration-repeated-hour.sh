#!/usr/bin/env bash
# iso8601-duration 2.1.4 (npm): five minutes from now can be 55 minutes ago.
#
# Expected: PT5M is five minutes of exact time (ISO 8601-1: a time unit, not a calendar unit), so that end() is 300 s
#           after the start on every day, as with Temporal.
# Actual:   end() adds to the local clock reading. In the repeated hour at the end of summer time the second 01:30 is
#           read as the first one, so that the end lies 55 minutes before the start, and PT24H from the first 01:30
#           are 25 hours. toSeconds() corrects the same error and says 300.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund iso8601-duration@2.1.4
cat >try.mjs <<'JS'
import { end, parse, toSeconds } from 'iso8601-duration';

for (const [text, from] of [
  ['PT5M', '2026-11-01T05:30:00Z'],
  ['PT5M', '2026-11-01T06:30:00Z'],
  ['PT5M', '2026-11-01T07:30:00Z'],
  ['PT24H', '2026-11-01T05:30:00Z'],
]) {
  const start = new Date(from);
  const duration = parse(text);
  console.log(`${text} from ${from}: end() ${(end(duration, start) - start) / 1000} s, toSeconds() ${toSeconds(duration, start)} s`);
}
JS
cat >EXPECTED <<'TXT'
PT5M from 2026-11-01T05:30:00Z: end() 300 s, toSeconds() 300 s
PT5M from 2026-11-01T06:30:00Z: end() -3300 s, toSeconds() 300 s
PT5M from 2026-11-01T07:30:00Z: end() 300 s, toSeconds() 300 s
PT24H from 2026-11-01T05:30:00Z: end() 90000 s, toSeconds() 86400 s
TXT
TZ=America/New_York node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
