#!/usr/bin/env bash
# @valibot/to-json-schema 1.8.0 (npm): no value satisfies both isoDateTime() and its JSON Schema.
#
# Expected: The JSON Schema of a validator admits what the validator admits, or the conversion throws, as it does for
#           a regular expression with flags. A model that is given the schema writes values that the tool accepts.
# Actual:   isoDateTime() admits only minutes without a zone ("2026-11-30T09:00"). It is converted to the format
#           "date-time" (RFC 3339), which requires seconds and a zone. Each date-time that a model writes by the
#           schema is refused.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @valibot/to-json-schema@1.8.0 valibot@1.5.0 ajv@8.20.0 ajv-formats@3.0.1
cat >try.mjs <<'JS'
import { toJsonSchema } from '@valibot/to-json-schema';
import { Ajv } from 'ajv';
import addFormats from 'ajv-formats';
import * as v from 'valibot';

const ajv = new Ajv();
addFormats.default(ajv);
for (const action of ['isoTimestamp', 'isoDateTime']) {
  const schema = v.pipe(v.string(), v[action]());
  const { format } = toJsonSchema(schema);
  const admits = ajv.compile({ type: 'string', format });
  for (const value of ['2026-11-30T09:00', '2026-11-30T09:00:00', '2026-11-30T09:00:00Z', '2026-11-30T09:00:00+01:00']) {
    console.log(`${action}, "${format}", ${value}: validator ${v.is(schema, value)}, schema ${admits(value)}`);
  }
}
JS
cat >EXPECTED <<'TXT'
isoTimestamp, "date-time", 2026-11-30T09:00: validator false, schema false
isoTimestamp, "date-time", 2026-11-30T09:00:00: validator false, schema false
isoTimestamp, "date-time", 2026-11-30T09:00:00Z: validator true, schema true
isoTimestamp, "date-time", 2026-11-30T09:00:00+01:00: validator true, schema true
isoDateTime, "date-time", 2026-11-30T09:00: validator true, schema false
isoDateTime, "date-time", 2026-11-30T09:00:00: validator false, schema false
isoDateTime, "date-time", 2026-11-30T09:00:00Z: validator false, schema true
isoDateTime, "date-time", 2026-11-30T09:00:00+01:00: validator false, schema true
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
