#!/usr/bin/env bash
# @openmeter/sdk 1.0.0-beta.232 (npm): text that looks like a date-time becomes a Date in every field of a response.
#
# Expected: fields that the types give as Date (`time`, `ingestedAt`) arrive as Date. `subject` is a string by its type
#           and `data` is the caller's own JSON: both arrive as they were sent.
# Actual:   every string of the response that has the form of a date-time becomes a Date, so that a method of String
#           fails on `subject`. Text without offset is read as local time: its value depends on the time zone of the
#           process.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @openmeter/sdk@1.0.0-beta.232
cat >try.mjs <<'JS'
import { createServer } from 'node:http';
import { OpenMeter } from '@openmeter/sdk';

const event = {
  id: '1',
  source: '/s',
  specversion: '1.0',
  type: 'tokens',
  time: '2026-11-30T09:00:00Z',
  subject: '2026-11-30T09:00:00',
  data: { window: '2026-11-30T09:00:00', day: '2026-11-30' },
};
const server = createServer((request, response) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify([{ event, ingestedAt: '2026-11-30T09:00:01Z', storedAt: '2026-11-30T09:00:02Z' }]));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const openmeter = new OpenMeter({ baseUrl: `http://127.0.0.1:${server.address().port}` });
const [{ event: received }] = await openmeter.events.list();
const kind = (value) => (value instanceof Date ? `Date ${value.toISOString()}` : `${typeof value} ${value}`);
console.log('time       ', kind(received.time));
console.log('subject    ', kind(received.subject));
console.log('data.window', kind(received.data.window));
console.log('data.day   ', kind(received.data.day));
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
time        Date 2026-11-30T09:00:00.000Z
subject     Date 2026-11-30T14:00:00.000Z
data.window Date 2026-11-30T14:00:00.000Z
data.day    string 2026-11-30
TXT
TZ=America/New_York node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
