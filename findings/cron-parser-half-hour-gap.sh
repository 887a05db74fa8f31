#!/usr/bin/env bash
# cron-parser 5.10.6 (npm): a daily job does not run on the day of a half-hour gap.
#
# Expected: A time of day that does not exist because of summer time runs after the gap, as in New York, where 02:15
#           runs at 03:15 on that day. So does it on Lord Howe Island, where 02:00 to 02:30 does not exist on
#           2026-10-04.
# Actual:   The day is left out there: two days lie between two runs of a daily job.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cron-parser@5.10.6
cat >try.mjs <<'JS'
import { CronExpressionParser } from 'cron-parser';

for (const [tz, currentDate] of [
  ['America/New_York', '2026-03-07T12:00:00Z'],
  ['Australia/Lord_Howe', '2026-10-02T12:00:00Z'],
]) {
  const runs = CronExpressionParser.parse('15 2 * * *', { tz, currentDate: new Date(currentDate) });
  const local = () => runs.next().toDate().toLocaleString('sv', { timeZone: tz });
  console.log(`${tz}: ${local()}, ${local()}, ${local()}`);
}
JS
cat >EXPECTED <<'TXT'
America/New_York: 2026-03-08 03:15:00, 2026-03-09 02:15:00, 2026-03-10 02:15:00
Australia/Lord_Howe: 2026-10-03 02:15:00, 2026-10-05 02:15:00, 2026-10-06 02:15:00
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
