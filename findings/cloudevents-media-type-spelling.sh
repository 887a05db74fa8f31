#!/usr/bin/env bash
# cloudevents 10.0.0 (npm): a structured message is refused when the charset parameter is spelled differently.
#
# Expected: RFC 9110 section 8.3.1: these are the same media type: optional white space around ";", case-insensitive
#           charset value, quoted or not. All of them parse.
# Actual:   only the bare type and the exact text "; charset=utf-8" are accepted. The others throw "invalid content type",
#           and an upper-case letter in the type itself throws "no cloud event detected". The batch type is compared
#           by its beginning and accepts the same parameters.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund cloudevents@10.0.0
cat >try.mjs <<'JS'
import { HTTP } from 'cloudevents';

const event = { specversion: '1.0', id: '1', source: '/s', type: 't' };
const types = [
  'application/cloudevents+json',
  'application/cloudevents+json; charset=utf-8',
  'application/cloudevents+json;charset=utf-8',
  'application/cloudevents+json; charset=UTF-8',
  'application/cloudevents+json; charset="utf-8"',
  'Application/CloudEvents+JSON',
  'application/cloudevents-batch+json;charset=UTF-8',
];
for (const type of types) {
  const body = JSON.stringify(type.includes('batch') ? [event] : event);
  try {
    HTTP.toEvent({ headers: { 'content-type': type }, body });
    console.log('parsed ', type);
  } catch (error) {
    console.log('refused', type, '-', error.message);
  }
}
JS
cat >EXPECTED <<'TXT'
parsed  application/cloudevents+json
parsed  application/cloudevents+json; charset=utf-8
refused application/cloudevents+json;charset=utf-8 - invalid content type application/cloudevents+json;charset=utf-8
refused application/cloudevents+json; charset=UTF-8 - invalid content type application/cloudevents+json; charset=UTF-8
refused application/cloudevents+json; charset="utf-8" - invalid content type application/cloudevents+json; charset="utf-8"
refused Application/CloudEvents+JSON - no cloud event detected
parsed  application/cloudevents-batch+json;charset=UTF-8
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
