#!/usr/bin/env bash
# @openai/agents-core 0.20.0 (npm): an MCP tool that refuses unknown arguments is offered to the model as one that
# takes any.
#
# Expected: the model gets the `inputSchema` of the server. `additionalProperties: false` says that a misspelt
#           argument is an error; `additionalProperties: {"type":"string"}` says what further arguments look like.
# Actual:   without `convertSchemasToStrict` (the default) `additionalProperties` is set to true in both cases.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund @openai/agents-core@0.20.0 zod@4.6.7
cat >try.mjs <<'JS'
import { mcpToFunctionTool } from '@openai/agents-core';

const server = { name: 's', callTool: async () => [] };
for (const additionalProperties of [false, { type: 'string' }]) {
  const inputSchema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties };
  const { parameters } = mcpToFunctionTool({ name: 'weather', inputSchema }, server, false);
  console.log(`server ${JSON.stringify(additionalProperties)}, model ${JSON.stringify(parameters.additionalProperties)}`);
}
JS
cat >EXPECTED <<'TXT'
server false, model true
server {"type":"string"}, model true
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
