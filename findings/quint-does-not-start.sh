#!/usr/bin/env bash
# @informalsystems/quint 0.33.1 (npm): after a fresh install, the command does not start.
#
# Expected: `quint --version` prints 0.33.1.
# Actual:   its dependency `antlr4ts: ^0.5.0-alpha.4` resolves to 0.5.0-dev, because "dev" sorts after "alpha" (Semantic
#           Versioning 2.0.0, section 11.4), and that version fails while it is loaded. An override in package.json of
#           antlr4ts to 0.5.0-alpha.4 repairs it.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
try() {
  rm -rf node_modules package-lock.json
  npm install --silent --no-audit --no-fund
  echo "$1: antlr4ts $(node -p "require('antlr4ts/package.json').version")," \
    "quint --version: $(npx --no-install quint --version 2>&1 | grep -oE '^[0-9.]+$|^[A-Za-z]+Error: .*' | head -1)"
}
{
  echo '{"dependencies":{"@informalsystems/quint":"0.33.1"}}' >package.json
  try 'as published'
  echo '{"dependencies":{"@informalsystems/quint":"0.33.1"},"overrides":{"antlr4ts":"0.5.0-alpha.4"}}' >package.json
  try 'with the override'
} | tee seen
cat >EXPECTED <<'TXT'
as published: antlr4ts 0.5.0-dev, quint --version: TypeError: Class extends value undefined is not a constructor or null
with the override: antlr4ts 0.5.0-alpha.4, quint --version: 0.33.1
TXT
diff EXPECTED seen && echo 'unchanged'
