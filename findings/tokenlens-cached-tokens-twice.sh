#!/usr/bin/env bash
# tokenlens 1.3.1 (npm): cached input tokens are charged twice.
#
# Expected: `cachedInputTokens` of the AI SDK is the part of `inputTokens` that was read from the cache, so that a
#           request read from the cache completely costs its tokens at the price of cached tokens.
# Actual:   All input tokens are charged at the full price, and the cached ones again at their own: a cache makes a
#           request dearer.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund tokenlens@1.3.1
cat >try.mjs <<'JS'
import { estimateCost, getTokenCosts } from 'tokenlens';

const modelId = 'openai:gpt-4.1';
for (const usage of [
  { inputTokens: 1_000_000, outputTokens: 0 },
  { inputTokens: 1_000_000, cachedInputTokens: 1_000_000, outputTokens: 0 },
]) {
  const { inputUSD, cacheReadUSD = 0, totalUSD } = estimateCost({ modelId, usage });
  console.log(`cached: ${usage.cachedInputTokens ?? 0}, input $${inputUSD}, cache $${cacheReadUSD}, total $${totalUSD}`);
  console.log(`the same by getTokenCosts(): total $${getTokenCosts({ modelId, usage }).totalUSD}`);
}
JS
cat >EXPECTED <<'TXT'
cached: 0, input $2, cache $0, total $2
the same by getTokenCosts(): total $2
cached: 1000000, input $2, cache $0.5, total $2.5
the same by getTokenCosts(): total $2.5
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
