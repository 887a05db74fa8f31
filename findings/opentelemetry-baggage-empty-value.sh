#!/usr/bin/env bash
# @opentelemetry/core 3.1.0 (npm): the baggage propagator drops an entry whose value is empty.
#
# Expected: W3C Baggage, section 3.3.1, defines `value = *baggage-octet`: an empty value is one. An entry "tenant=" is
#           extracted with the value "", and passed on to the next service.
# Actual:   the entry is dropped when it is read. With the API, an entry with an empty value can be set, and is sent as
#           "tenant=", so that it is lost at the next service.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @opentelemetry/core@3.1.0 @opentelemetry/api@1
cat >try.mjs <<'JS'
import { defaultTextMapGetter, defaultTextMapSetter, propagation, ROOT_CONTEXT } from '@opentelemetry/api';
import { W3CBaggagePropagator } from '@opentelemetry/core';

const propagator = new W3CBaggagePropagator();
const entries = { region: { value: 'eu' }, tenant: { value: '' } };
const headers = {};
propagator.inject(propagation.setBaggage(ROOT_CONTEXT, propagation.createBaggage(entries)), headers, defaultTextMapSetter);
console.log(`sent: ${headers.baggage}`);
const received = propagation.getBaggage(propagator.extract(ROOT_CONTEXT, headers, defaultTextMapGetter));
for (const [name, { value }] of received.getAllEntries()) console.log(`received: ${name}=${JSON.stringify(value)}`);
JS
cat >EXPECTED <<'TXT'
sent: region=eu,tenant=
received: region="eu"
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
