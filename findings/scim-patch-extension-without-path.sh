#!/usr/bin/env bash
# scim-patch 0.8.3 (npm): an extension of a user is stored under a part of its name.
#
# Expected: A value without `path` has the attributes to add by their names (RFC 7644 section 3.5.2.1). The enterprise
#           extension is one attribute, named by its URN (RFC 7643 section 4.3), as it is with a path.
# Actual:   The name is split at the point of "2.0": the department is stored in `User` of `urn:...:enterprise:2.0`,
#           where no reader looks. There is no error.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund scim-patch@0.8.3
cat >try.mjs <<'JS'
import { scimPatch } from 'scim-patch';

const enterprise = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
const operations = {
  'with path   ': { op: 'add', path: `${enterprise}:department`, value: 'Sales' },
  'without path': { op: 'add', value: { [enterprise]: { department: 'Sales' } } },
};
for (const [name, operation] of Object.entries(operations)) {
  const { schemas, meta, userName, ...added } = scimPatch({ schemas: [], userName: 'bjensen', meta: {} }, [operation]);
  console.log(name, JSON.stringify(added));
}
JS
cat >EXPECTED <<'TXT'
with path    {"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{"department":"Sales"}}
without path {"urn:ietf:params:scim:schemas:extension:enterprise:2.0":{"User":{"department":"Sales"}}}
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
