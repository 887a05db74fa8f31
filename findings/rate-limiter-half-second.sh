#!/usr/bin/env bash
# rate-limiter-flexible 11.4.0 (npm): with Redis, a limit per half second is a limit for ever.
#
# Expected: `duration` is the "number of seconds before consumed points are reset" (README), so 0.5 resets them after
#           500 ms, as RateLimiterMemory does with the same options.
# Actual:   RateLimiterRedis rounds down to 0 seconds, which means "never": the key has no expiry, and after `points`
#           actions the client is refused for good. 1.5 is 1. There is no error.
# Output seen on 2026-11-30, Node 20.20, Redis 7.0: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "$redis" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' >/dev/null &
redis=$!
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund rate-limiter-flexible@11.4.0 ioredis@5.8.2
cat >try.mjs <<'JS'
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import limiters from 'rate-limiter-flexible';

const { RateLimiterMemory, RateLimiterRedis } = limiters;
const storeClient = new Redis(process.argv[2]);
for (const Limiter of [RateLimiterMemory, RateLimiterRedis]) {
  for (const duration of [0.5, 1]) {
    const limiter = new Limiter({ storeClient, points: 1, duration, keyPrefix: `${duration}` });
    await limiter.consume('user');
    await delay(2_000);
    const later = await limiter.consume('user').then(() => 'allowed', () => 'refused');
    console.log(`${Limiter.name}, ${duration} s: ${later} after 2 s`);
  }
}
process.exit(0);
JS
cat >EXPECTED <<'TXT'
RateLimiterMemory, 0.5 s: allowed after 2 s
RateLimiterMemory, 1 s: allowed after 2 s
RateLimiterRedis, 0.5 s: refused after 2 s
RateLimiterRedis, 1 s: allowed after 2 s
TXT
node try.mjs "$dir/redis.sock" | tee seen
diff EXPECTED seen && echo 'unchanged'
