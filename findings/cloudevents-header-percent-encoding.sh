#!/usr/bin/env bash
# cloudevents 10.0.0 (npm): header values of the HTTP binding are neither percent-encoded nor percent-decoded.
#
# Expected: HTTP protocol binding 1.0.2 section 3.1.3.2: a value such as "Euro \u20AC" is sent as "Euro%20%E2%82%AC" and
#           decoded by the receiver.
# Actual:   HTTP.toEvent() leaves "Euro%20%E2%82%AC" as the subject, and HTTP.binary() puts the raw character into the
#           header, which Node's HTTP client then refuses to send.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0
cat >try.mjs <<'JS'
import { validateHeaderValue } from 'node:http';
import { CloudEvent, HTTP } from 'cloudevents';

const headers = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't', 'content-type': 'text/plain' };
const received = HTTP.toEvent({ headers: { ...headers, 'ce-subject': 'Euro%20%E2%82%AC' }, body: 'x' });
console.log('received', received.subject);
const sent = HTTP.binary(new CloudEvent({ id: '1', source: '/s', type: 't', subject: 'Euro \u20AC' })).headers['ce-subject'];
console.log('sent as escaped:', sent === 'Euro%20%E2%82%AC', '- raw:', sent === 'Euro \u20AC');
try {
  validateHeaderValue('ce-subject', sent);
} catch (error) {
  console.log('node:http', error.code);
}
JS
cat >EXPECTED <<'TXT'
received Euro%20%E2%82%AC
sent as escaped: false - raw: true
node:http ERR_INVALID_CHAR
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
