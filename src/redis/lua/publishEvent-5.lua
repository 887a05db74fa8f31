--[[
  Appends an event of a service to a user's log, once per idempotency key and within a rate. A refused event writes
  nothing.

  KEYS[1] log            the user's events, see include/events.lua
  KEYS[2] logState       hash: epoch, seq
  KEYS[3] published      hash: digest of an idempotency key -> "<digest of its request> <seq> <epoch>"; and the current
                         window of the rate in `:ends` (ms) and `:count`
  KEYS[4] publishedKeys  sorted set of these digests, by time, ms
  KEYS[5] account        hash; `erasure` while the user's data is being erased
  ARGV[1] type
  ARGV[2] timestamp
  ARGV[3] fields (a JSON object with at least one member)
  ARGV[4] digest of the idempotency key, "" for none
  ARGV[5] digest of the request
  ARGV[6] maximum number of events per window
  ARGV[7] duration of a window, ms
  ARGV[8] maximum number of idempotency keys
  ARGV[9] ms that an idempotency key is kept
  ARGV[10] the user's channel
  ARGV[11] maximum length of the log
  ARGV[12] maximum age of an event, ms
  ARGV[13] seconds that an unused log keeps its log epoch
  ARGV[14] maximum size of the log, bytes
  Returns { "appended" | "repeated", seq, epoch }, { "conflict" }, { "erasing" } or { "limited", ms until the window ends }
]]
--@include streams
--@include events
local published, publishedKeys = KEYS[3], KEYS[4]
local keyDigest, requestDigest, window = ARGV[4], ARGV[5], tonumber(ARGV[7])
if redis.call('HEXISTS', KEYS[5], 'erasure') == 1 then return { 'erasing' } end

local first = keyDigest ~= '' and redis.call('HGET', published, keyDigest)
if first then
  local request, seq, epoch = string.match(first, '^(%S+) (%d+) (%S+)$')
  if request ~= requestDigest then return { 'conflict' } end
  return { 'repeated', tonumber(seq), epoch }
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rate = redis.call('HMGET', published, ':ends', ':count')
local ends, count = tonumber(rate[1] or '0'), tonumber(rate[2] or '0')
-- More than a window ahead: the clock was set back, and the window must not last longer for it.
if now >= ends or ends - now > window then ends, count = now + window, 0 end
if count >= tonumber(ARGV[6]) then return { 'limited', ends - now } end

local options =
  { channel = ARGV[10], length = ARGV[11], maxAge = ARGV[12], stateSeconds = ARGV[13], maxBytes = ARGV[14] }
local log = openLog({ log = KEYS[1], logState = KEYS[2] }, options, time)
appendEvent(log, ARGV[1], ARGV[2], ARGV[3])
closeLog(log)

redis.call('HSET', published, ':ends', ends, ':count', count + 1)
if keyDigest ~= '' then
  redis.call('HSET', published, keyDigest, requestDigest .. ' ' .. log.seq .. ' ' .. log.epoch)
  redis.call('ZADD', publishedKeys, now, keyDigest)
  -- At most two per event: keys that expired together are removed over the next events.
  local oldest = redis.call('ZRANGE', publishedKeys, 0, 1, 'WITHSCORES')
  local excess = redis.call('ZCARD', publishedKeys) - tonumber(ARGV[8])
  for i = 1, #oldest, 2 do
    if excess > 0 or now - tonumber(oldest[i + 1]) > tonumber(ARGV[9]) then
      redis.call('HDEL', published, oldest[i])
      redis.call('ZREM', publishedKeys, oldest[i])
      excess = excess - 1
    end
  end
end
redis.call('PEXPIRE', published, ARGV[9])
redis.call('PEXPIRE', publishedKeys, ARGV[9])
return { 'appended', log.seq, log.epoch }
