#!/usr/bin/env bash
# @opentelemetry/propagator-b3 3.1.0 (npm): `b3: 0`, the request not to sample, has no effect.
#
# Expected: a B3 header may hold the sampling state alone, and `0` is its deny decision ("b3: 0", B3 specification,
#           Single Header). Zipkin and Envoy send it to keep health checks and bots out of the traces.
# Actual:   extract() returns the context unchanged, because there are no ids in it. The receiver starts a trace of
#           its own and samples it. The same decision with ids (`<trace>-<span>-0`) is honoured.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @opentelemetry/api@1.10.0 @opentelemetry/propagator-b3@3.1.0 @opentelemetry/sdk-trace@3.1.0
cat >try.mjs <<'JS'
import { defaultTextMapGetter, ROOT_CONTEXT } from '@opentelemetry/api';
import { B3Propagator } from '@opentelemetry/propagator-b3';
import * as sdk from '@opentelemetry/sdk-trace';

const sampler = new sdk.ParentBasedSampler({ root: new sdk.AlwaysOnSampler() });
for (const b3 of ['0', '64fe8b2a57d3eff7-e457b5a2e4d86bd1-0']) {
  const context = new B3Propagator().extract(ROOT_CONTEXT, { b3 }, defaultTextMapGetter);
  const { decision } = sampler.shouldSample(context, '0af7651916cd43dd8448eb211c80319c', 'GET /', 1, {}, []);
  console.log(`b3: ${b3} -> ${sdk.SamplingDecision[decision]}`);
}
JS
cat >EXPECTED <<'TXT'
b3: 0 -> RECORD_AND_SAMPLED
b3: 64fe8b2a57d3eff7-e457b5a2e4d86bd1-0 -> NOT_RECORD
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
