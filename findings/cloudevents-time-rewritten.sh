#!/usr/bin/env bash
# cloudevents 10.0.0 (npm): an RFC 3339 `time` loses everything below a millisecond, and its offset, when it is written or read.
#
# Expected: `time` travels as it was given: RFC 3339 section 5.6 allows any number of fraction digits and an offset. The
#           property of the event object does keep the text.
# Actual:   HTTP.structured(), HTTP.binary() and HTTP.toEvent() rewrite it to milliseconds in UTC without a warning, so two
#           samples that differ by less than a millisecond get the same time, and the local hour of the source is gone.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0
cat >try.mjs <<'JS'
import { CloudEvent, HTTP } from 'cloudevents';

const time = '2026-11-30T09:00:00.123456789+01:00';
const attributes = { specversion: '1.0', id: '1', source: '/s', type: 't', time };
const event = new CloudEvent(attributes);
console.log('property  ', event.time);
console.log('structured', JSON.parse(HTTP.structured(event).body).time);
console.log('binary    ', HTTP.binary(event).headers['ce-time']);
const message = { headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify(attributes) };
console.log('parsed    ', HTTP.toEvent(message).time);
JS
cat >EXPECTED <<'TXT'
property   2026-11-30T09:00:00.123456789+01:00
structured 2026-11-30T08:00:00.123Z
binary     2026-11-30T08:00:00.123Z
parsed     2026-11-30T08:00:00.123Z
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
