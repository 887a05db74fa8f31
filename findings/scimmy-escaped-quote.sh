#!/usr/bin/env bash
# scimmy 1.3.5 (npm): a filter for a name with a quotation mark is refused.
#
# Expected: The value of a filter is a JSON string (RFC 7644 section 3.4.2.2, "compValue"), so that a quotation mark
#           in it is escaped with a backslash.
# Actual:   The first quotation mark ends the string, and the rest is an "Unexpected token". A closing bracket in a
#           string ends the value path likewise. Single backslashes elsewhere are accepted, but not decoded.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund scimmy@1.3.5
cat >try.mjs <<'JS'
import SCIMMY from 'scimmy';

const users = [{ displayName: 'Ann "AJ" Lee', emails: [{ value: 'a]b@example.com' }] }];
for (const filter of [
  'displayName co "Ann"',
  'displayName eq "Ann \\"AJ\\" Lee"',
  'displayName eq "\\u0041nn \\u0022AJ\\u0022 Lee"',
  'emails.value eq "a]b@example.com"',
  'emails[value eq "a]b@example.com"]',
]) {
  try {
    console.log(filter, new SCIMMY.Types.Filter(filter).match(users).length);
  } catch (error) {
    console.log(filter, error.constructor.name);
  }
}
JS
cat >EXPECTED <<'TXT'
displayName co "Ann" 1
displayName eq "Ann \"AJ\" Lee" SCIMError
displayName eq "\u0041nn \u0022AJ\u0022 Lee" 0
emails.value eq "a]b@example.com" 1
emails[value eq "a]b@example.com"] SCIMError
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
