#!/usr/bin/env bash
# bullmq 6.7.0 (npm): a job scheduler keeps a time that was computed with the clock of one worker.
#
# Expected: when the clock of a worker was ahead for some seconds (300 s here) and is right again, a scheduler with a
#           period of one second runs on at the latest after upsertJobScheduler() was called again with that period.
# Actual:   the worker that takes a job writes the time of the next one with its own clock: 300 s ahead. All workers wait
#           for it, and the upsert keeps it, so the scheduler runs nothing for five minutes.
# Output seen on 2026-12-01, Node 20.20 and 24.21, Redis 7.0.15: see EXPECTED below. Needs redis-server on the PATH.
set -euo pipefail
command -v redis-server >/dev/null || { echo 'redis-server not found' >&2; exit 1; }
dir=$(mktemp -d)
redis=
trap '[ -z "$redis" ] || kill "$redis"; rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund bullmq@6.7.0 ioredis@5.11.1
redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' >redis.log &
redis=$!
until [ -S redis.sock ]; do kill -0 "$redis"; sleep 0.1; done
cat >try.cjs <<'JS'
const { Queue, Worker } = require('bullmq');

const connection = { path: `${__dirname}/redis.sock` };
const rightNow = Date.now;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

(async () => {
  const queue = new Queue('tasks', { connection });
  const schedule = () => queue.upsertJobScheduler('tick', { every: 1_000 }, { name: 'tick' });
  let runs = 0;
  await schedule();
  const worker = new Worker('tasks', async () => void (runs += 1), { connection });
  const report = async (when) => {
    const before = runs;
    await wait(4_000);
    const [{ next }] = await queue.getJobSchedulers();
    const isNear = next - rightNow() < 5_000;
    console.log(`${when}: ${runs > before ? 'runs' : 'no run'}, next ${isNear ? 'within 5 s' : 'in minutes'}`);
  };
  await report('clock right');
  Date.now = () => rightNow() + 300_000;
  await wait(3_000);
  Date.now = rightNow;
  await report('clock right again');
  await schedule();
  await report('after another upsert');
  await worker.close();
  await queue.close();
})();
JS
cat >EXPECTED <<'TXT'
clock right: runs, next within 5 s
clock right again: no run, next in minutes
after another upsert: no run, next in minutes
TXT
timeout 60 node try.cjs | tee seen
diff EXPECTED seen && echo 'unchanged'
