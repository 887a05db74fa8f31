--[[
  Appends an event of a service to a user's log, once per idempotency key and within a rate. A refused event writes
  nothing.

  KEYS[1] log            the user's events, see include/events.lua
  KEYS[2] logState       hash: epoch, seq
  KEYS[3] published      hash: digest of an idempotency key -> "<digest of its request> <seq> <epoch>"; and the current
                         window of the rate in `:ends` (ms) and `:count`
  KEYS[4] publishedKeys  sorted set of these digests, by time, ms
  KEYS[5] account        hash; `erasure` while the user's data is being erased
  ARGV[1] to ARGV[7] see include/events.lua
  ARGV[8] type
  ARGV[9] timestamp
  ARGV[10] fields (a JSON object with at least one member)
  ARGV[11] digest of the idempotency key, "" for none
  ARGV[12] digest of the request
  ARGV[13] maximum number of events per window
  ARGV[14] duration of a window, ms
  ARGV[15] maximum number of idempotency keys
  ARGV[16] ms that an idempotency key is kept
  Returns { "appended" | "repeated", seq, epoch }, { "conflict" }, { "erasing" } or { "limited", ms until the window ends }
]]
--@include time
--@include streams
--@include events
local published, publishedKeys = KEYS[3], KEYS[4]
local keyDigest, requestDigest, window = ARGV[11], ARGV[12], tonumber(ARGV[14])
if redis.call('HEXISTS', KEYS[5], 'erasure') == 1 then return { 'erasing' } end

local first = keyDigest ~= '' and redis.call('HGET', published, keyDigest)
if first then
  local request, seq, epoch = string.match(first, '^(%S+) (%d+) (%S+)$')
  if request ~= requestDigest then return { 'conflict' } end
  return { 'repeated', tonumber(seq), epoch }
end

local time = redis.call('TIME')
local now = millis(time)
local rate = redis.call('HMGET', published, ':ends', ':count')
local ends, count = tonumber(rate[1] or '0'), tonumber(rate[2] or '0')
-- More than a window ahead: the clock was set back, and the window must not last longer for it.
if now >= ends or ends - now > window then ends, count = now + window, 0 end
if count >= tonumber(ARGV[13]) then return { 'limited', ends - now } end

local log = openLog(KEYS[1], KEYS[2], time)
appendEvent(log, ARGV[8], ARGV[9], string.sub(ARGV[10], 2))
closeLog(log)

redis.call('HSET', published, ':ends', ends, ':count', count + 1)
if keyDigest ~= '' then
  redis.call('HSET', published, keyDigest, requestDigest .. ' ' .. log.seq .. ' ' .. log.epoch)
  redis.call('ZADD', publishedKeys, now, keyDigest)
  -- At most two per event: keys that expired together are removed over the next events.
  local oldest = redis.call('ZRANGE', publishedKeys, 0, 1, 'WITHSCORES')
  local excess = redis.call('ZCARD', publishedKeys) - tonumber(ARGV[15])
  for i = 1, #oldest, 2 do
    if excess > 0 or now - tonumber(oldest[i + 1]) > tonumber(ARGV[16]) then
      redis.call('HDEL', published, oldest[i])
      redis.call('ZREM', publishedKeys, oldest[i])
      excess = excess - 1
    end
  end
end
redis.call('PEXPIRE', published, ARGV[16])
redis.call('PEXPIRE', publishedKeys, ARGV[16])
return { 'appended', log.seq, log.epoch }
