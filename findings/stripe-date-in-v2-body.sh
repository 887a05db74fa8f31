#!/usr/bin/env bash
# stripe 23.1.0 (npm): a Date in the body of an API v2 request is sent as epoch seconds in a string.
#
# Expected: a Date passes as a request parameter (stripe-node issue 569) in the form of the API at hand: epoch seconds
#           for v1, date-time text (RFC 3339) for v2. JSON.stringify() alone writes "2026-11-30T09:00:00.000Z".
# Actual:   the client sends "1796029200", the form of API v1 in a string, without an error. Text passes unchanged. (The
#           TypeScript type of `timestamp` is string; the conversion affects callers in JavaScript.)
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund stripe@23.1.0
cat >try.mjs <<'JS'
import { createServer } from 'node:http';
import Stripe from 'stripe';

const server = createServer(async (request, response) => {
  let body = '';
  for await (const piece of request) body += piece;
  console.log(request.url, request.headers['content-type'], JSON.stringify(JSON.parse(body).timestamp));
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end('{"object":"v2.billing.meter_event"}');
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address();
const stripe = new Stripe('sk_test_none', { host: '127.0.0.1', port, protocol: 'http', telemetry: false });
const time = new Date('2026-11-30T09:00:00Z');
for (const timestamp of [time.toISOString(), time]) {
  await stripe.v2.billing.meterEvents.create({ event_name: 'tokens', payload: { value: '1' }, timestamp });
}
server.closeAllConnections();
server.close();
JS
cat >EXPECTED <<'TXT'
/v2/billing/meter_events application/json "2026-11-30T09:00:00.000Z"
/v2/billing/meter_events application/json "1796029200"
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
