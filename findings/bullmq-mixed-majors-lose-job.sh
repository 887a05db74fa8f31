#!/usr/bin/env bash
# bullmq 5.81.5 and 6.7.0 (npm) on one queue: resume() of version 5 drops jobs that version 6 added during the pause.
#
# Expected: in a rolling upgrade the two majors share a queue without loss: the guide "Migrate from v5 to v6" names no
#           change of the data behind a pause, and resume() of version 6 takes over the jobs that version 5 left in its
#           list "paused".
# Actual:   during a pause version 6 adds to the list "wait", version 5 to "paused"; resume() of version 5 renames
#           "paused" to "wait" and so replaces that list. The hash of job a stays, but its state is "unknown", it is in
#           no list and it never runs. Without job b nothing is renamed, and job a runs.
# Output seen on 2026-11-30, Node 20.20, Redis 7.0.15: see EXPECTED below. Needs redis-server on the PATH.
set -euo pipefail
command -v redis-server >/dev/null || { echo 'redis-server not found' >&2; exit 1; }
dir=$(mktemp -d)
redis=
trap '[ -z "$redis" ] || kill "$redis"; rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund bullmq-5@npm:bullmq@5.81.5 bullmq-6@npm:bullmq@6.7.0 ioredis@5.11.1
redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' >redis.log &
redis=$!
until [ -S redis.sock ]; do kill -0 "$redis"; sleep 0.1; done
cat >try.cjs <<'JS'
const five = require('bullmq-5');
const six = require('bullmq-6');

const connection = { path: `${__dirname}/redis.sock` };

async function jobsRun(name, addedByFive) {
  const old = new five.Queue(name, { connection });
  const current = new six.Queue(name, { connection });
  await old.pause();
  await current.add('work', {}, { jobId: 'a' });
  for (const jobId of addedByFive) await old.add('work', {}, { jobId });
  await old.resume();
  const state = await current.getJobState('a');
  await current.add('work', {}, { jobId: 'last' });
  const run = [];
  let done;
  const lastJob = new Promise((resolve) => (done = resolve));
  const process = async ({ id }) => {
    run.push(id);
    if (id === 'last') done();
  };
  const worker = new six.Worker(name, process, { connection });
  await lastJob;
  await worker.close();
  console.log(`job a after resume: ${state}; run: ${run.join(', ')}`);
  await old.close();
  await current.close();
}

(async () => {
  await jobsRun('only-a', []);
  await jobsRun('a-and-b', ['b']);
})();
JS
cat >EXPECTED <<'TXT'
job a after resume: waiting; run: a, last
job a after resume: unknown; run: b, last
TXT
timeout 60 node try.cjs | tee seen
diff EXPECTED seen && echo 'unchanged'
