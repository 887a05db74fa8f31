--[[
  Accepts a request for an agent run, once per request id and within the limits of the plan, and stores it with the
  user's message in the thread. A refused request writes nothing.
  The rate limiter wrote the message counter just before, on the same connection: a message over the limit starts no
  run, although both commands were sent together.

  KEYS[1] messageRate   counter of the user's messages in the current window
  KEYS[2] request       string: "<run id> <thread id>" that this request id started
  KEYS[3] run           hash of the run
  KEYS[4] activeRuns    sorted set: "<user id> <run id>" -> when it must have ended, ms
  KEYS[5] runs          sorted set of the user's stored runs, by time of acceptance
  KEYS[6] threads       sorted set of the user's threads, by last change
  KEYS[7] threadInfo    hash: thread id -> JSON
  KEYS[8] thread        stream of the thread's messages
  KEYS[9] quota         hash of the user's counted uses, see include/quotas.lua
  KEYS[10] runsInFlight sorted set of the user's runs that have not ended: run id -> when it must have ended, ms
  ARGV[1] maximum value of the counter
  ARGV[2] run id
  ARGV[3] thread id
  ARGV[4] member of activeRuns
  ARGV[5] ms until the run must have ended
  ARGV[6] ms that the run and its request id are stored
  ARGV[7] maximum number of runs in `runs`
  ARGV[8] details of the thread if it is new (JSON)
  ARGV[9] the user's message (JSON)
  ARGV[10] maximum number of messages per thread
  ARGV[11] maximum number of bytes per thread
  ARGV[12] maximum number of threads per user, independent of the plan
  ARGV[13] ms that an unused thread is kept
  ARGV[14] key prefix of the user's threads
  ARGV[15] limits of the plan (JSON): threads (absent for no limit: then the oldest thread is removed), inFlight,
           perHour (a limit, see include/quotas.lua)
  ARGV[16] 1 when the request names no thread: if no thread can be added, the run uses the one that changed last
  ARGV[17...] field, value, field, value, ... of the run
  Returns { "started" | "repeated", run id, thread id }, { "limited" }, or
          { "refused", "threads" | "runs_per_hour" | "runs_in_flight", now, runs in flight, runs counted in the hour,
            when the oldest of them leaves the window, ms }
]]
--@include time
--@include streams
--@include threads
--@include quotas
local messageRate, request, run, activeRuns, runs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local threads, threadInfo, thread, quota, runsInFlight = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local runId, threadId, threadKeys = ARGV[2], ARGV[3], ARGV[14]
local HOUR_MS = 3600000
-- Entries of `runs` that are looked at; the rest follow with the next bucket.
local MAX_PRUNED = 1000
local stored = redis.call('MGET', messageRate, request)
if tonumber(stored[1] or 0) > tonumber(ARGV[1]) then return { 'limited' } end

local first = stored[2]
if first then
  local firstRun, firstThread = string.match(first, '^(%S+) (%S+)$')
  return { 'repeated', firstRun, firstThread }
end

local now = millis(redis.call('TIME'))
local since = now - ARGV[13]
local limits = cjson.decode(ARGV[15])
local inFlight = redis.call('ZCOUNT', runsInFlight, string.format('(%d', now), '+inf')
local hour, counts = readLimits(quota, {}, { limits.perHour }, now)
local function refused(limit) return { 'refused', limit, now, inFlight, unpack(hour) } end

local isFull = limits.threads and countThreads(threads, since) >= limits.threads
if isFull and not isThread(threads, threadId, since) then
  if ARGV[16] ~= '1' then return refused('threads') end
  threadId = redis.call('ZRANGE', threads, 0, 0, 'REV')[1]
  thread = threadKeys .. threadId
end
if hour[1] >= limits.perHour[MAX] then return refused('runs_per_hour') end
if inFlight >= limits.inFlight then return refused('runs_in_flight') end

-- The first write needs memory, so a Redis without free memory rejects the whole script: see `reserve` in
-- include/quotas.lua.
local nowText, deadline = string.format('%d', now), string.format('%d', now + ARGV[5])
redis.call('SET', request, runId .. ' ' .. threadId, 'PX', ARGV[6])
redis.call('HSET', run, 'status', 'queued', 'epoch', 0, 'events', 0, 'accepted_at', nowText, 'thread_id', threadId, unpack(ARGV, 17))
redis.call('PEXPIRE', run, ARGV[6])
redis.call('ZADD', activeRuns, deadline, ARGV[4])
redis.call('ZADD', runsInFlight, deadline, runId)
-- Expires with the last of them: while the configuration changes, gateways may use different maximum durations of a
-- run.
if inFlight == 0 then
  redis.call('PEXPIREAT', runsInFlight, deadline)
else
  redis.call('ZREMRANGEBYSCORE', runsInFlight, '-inf', now)
  redis.call('PEXPIREAT', runsInFlight, deadline, 'GT')
end
redis.call('ZADD', runs, nowText, runId)
-- The lists of the user are pruned, and their expiries renewed, by the first run of each bucket of the limit.
local isFirst = countUse(quota, limits.perHour, counts[1], now)
if isFirst then
  -- A run that waited for its user is stored for longer than others, and an erasure finds it by this list.
  local runKeys = string.sub(run, 1, -1 - #runId)
  for _, id in ipairs(redis.call('ZRANGE', runs, '-inf', now - ARGV[6], 'BYSCORE', 'LIMIT', 0, MAX_PRUNED)) do
    if redis.call('EXISTS', runKeys .. id) == 0 then redis.call('ZREM', runs, id) end
  end
  redis.call('ZREMRANGEBYRANK', runs, 0, -1 - ARGV[7])
  local kept = ARGV[6] + limits.perHour[BUCKET_MS]
  if redis.call('PTTL', runs) < kept then redis.call('PEXPIRE', runs, kept) end
end

local changed = redis.call('ZSCORE', threads, threadId)
local isNew = not changed or tonumber(changed) <= since
if isNew and (isFirst or changed) then pruneThreads(threads, threadInfo, since) end
redis.call('ZADD', threads, nowText, threadId)
addMessage(thread, ARGV[9], { messages = ARGV[10], bytes = ARGV[11] })
if isNew then
  redis.call('HSETNX', threadInfo, threadId, ARGV[8])
  local count = redis.call('ZCARD', threads)
  for _ = tonumber(ARGV[12]) + 1, count do
    local oldest = redis.call('ZPOPMIN', threads)[1]
    redis.call('HDEL', threadInfo, oldest)
    redis.call('DEL', threadKeys .. oldest)
  end
  -- The first thread of the user creates the keys.
  isFirst = isFirst or count == 1
end
if isFirst then
  redis.call('PEXPIRE', threads, ARGV[13] + HOUR_MS)
  redis.call('PEXPIRE', threadInfo, ARGV[13] + HOUR_MS)
end
-- The expiry of a thread is renewed by its first run of each hour.
if not changed or math.floor(changed / HOUR_MS) < math.floor(now / HOUR_MS) then
  redis.call('PEXPIRE', thread, ARGV[13] + HOUR_MS)
end
return { 'started', runId, threadId }
