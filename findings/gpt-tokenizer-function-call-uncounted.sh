#!/usr/bin/env bash
# gpt-tokenizer 4.0.0 (npm): the function call of a message counts as no token.
#
# Expected: A `ChatMessage` has `function_call` by its type, and countTokens() and encodeChat() count it: its name and
#           its arguments are most of the message.
# Actual:   The message counts as one without a call, however long the arguments are, so that isWithinTokenLimit()
#           allows a conversation that does not fit. Only countChatCompletionTokens() counts it.
# Output seen on 2026-12-01, Node 20.20 and 24.21: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund gpt-tokenizer@4.0.0
cat >try.mjs <<'JS'
import { countChatCompletionTokens, countTokens, encode, isWithinTokenLimit } from 'gpt-tokenizer/model/gpt-4.1';

const call = { name: 'search', arguments: JSON.stringify({ text: 'a few words '.repeat(100) }) };
const message = { role: 'assistant', content: '' };
console.log('the arguments alone:', encode(call.arguments).length);
for (const [name, chat] of Object.entries({ 'without call': [message], 'with call': [{ ...message, function_call: call }] })) {
  const counts = [countTokens(chat), isWithinTokenLimit(chat, 50) !== false, countChatCompletionTokens({ messages: chat })];
  console.log(`${name}: countTokens() ${counts[0]}, within 50: ${counts[1]}, countChatCompletionTokens() ${counts[2]}`);
}
JS
cat >EXPECTED <<'TXT'
the arguments alone: 304
without call: countTokens() 7, within 50: true, countChatCompletionTokens() 7
with call: countTokens() 7, within 50: true, countChatCompletionTokens() 315
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
