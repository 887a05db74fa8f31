#!/usr/bin/env bash
# @ag-ui/client 0.0.59 (npm, the version that @copilotkit/core 1.75 depends on): the messages of a MESSAGES_SNAPSHOT event
# become the agent's own, and later deltas change the event object that the caller passed in.
#
# Expected: the agent copies the messages of the event, as 1.0.0 does: an event may be kept, logged or given to a second
#           agent, and two agents that receive the same events have the same text.
# Actual:   with 0.0.59 the text of the delta is appended to the message inside the event. A second agent that receives
#           the same event objects therefore has the delta twice.
# Output seen on 2026-11-30, Node 20.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund old@npm:@ag-ui/client@0.0.59 new@npm:@ag-ui/client@1.0.0 rxjs@7.8.1
cat >try.mjs <<'JS'
import { from } from 'rxjs';

const events = () => [
  { type: 'RUN_STARTED', threadId: 't', runId: 'r' },
  { type: 'MESSAGES_SNAPSHOT', messages: [{ id: 'm', role: 'assistant', content: 'Hello' }] },
  { type: 'TEXT_MESSAGE_START', messageId: 'm', role: 'assistant' },
  { type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta: ' world' },
  { type: 'TEXT_MESSAGE_END', messageId: 'm' },
  { type: 'RUN_FINISHED', threadId: 't', runId: 'r' },
];

for (const version of ['old', 'new']) {
  const { AbstractAgent } = await import(version);
  class Replay extends AbstractAgent {
    run() {
      return from(shared);
    }
  }
  const shared = events();
  for (const agent of ['first', 'second']) {
    const replay = new Replay({ threadId: 't' });
    await replay.runAgent({ runId: 'r' });
    const { content } = replay.messages.find(({ id }) => id === 'm');
    console.log(`${version}, ${agent} agent: "${content}", snapshot in the event: "${shared[1].messages[0].content}"`);
  }
}
JS
cat >EXPECTED <<'TXT'
old, first agent: "Hello world", snapshot in the event: "Hello world"
old, second agent: "Hello world world", snapshot in the event: "Hello world world"
new, first agent: "Hello world", snapshot in the event: "Hello"
new, second agent: "Hello world", snapshot in the event: "Hello"
TXT
node try.mjs | tee seen
diff EXPECTED seen && echo 'unchanged'
