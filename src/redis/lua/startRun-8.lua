--[[
  Accepts a request for an agent run, once per request id, and stores it with the user's message in the thread.
  The message counter was written by the rate limiter just before, on the same connection: a message over the limit
  starts nothing, although both commands travelled together.

  KEYS[1] messageRate  counter of the user's messages in this window
  KEYS[2] request      string: "<run id> <thread id>" that this request id started
  KEYS[3] run          hash of the run
  KEYS[4] activeRuns   sorted set: "<user id> <run id>" -> when it must have ended, ms
  KEYS[5] runs         sorted set of the user's runs that are remembered, by acceptance
  KEYS[6] threads      sorted set of the user's threads, by last change
  KEYS[7] threadInfo   hash: thread id -> JSON
  KEYS[8] thread       stream of the thread's messages
  ARGV[1] greatest value of the counter
  ARGV[2] run id
  ARGV[3] thread id
  ARGV[4] member of activeRuns
  ARGV[5] ms until the run must have ended
  ARGV[6] ms that the run and its request id are remembered
  ARGV[7] how many runs to keep in that set
  ARGV[8] what to know of the thread if it is new (JSON)
  ARGV[9] the user's message (JSON)
  ARGV[10] how many messages a thread keeps
  ARGV[11] how many threads a user keeps
  ARGV[12] ms that an unused thread is kept
  ARGV[13] what the keys of the user's threads begin with
  ARGV[14...] field, value, field, value, ... of the run
  Returns { "started" | "repeated", run id, thread id } or { "limited" }
]]
local messageRate, request, run, activeRuns, runs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local threads, threadInfo, thread = KEYS[6], KEYS[7], KEYS[8]
if tonumber(redis.call('GET', messageRate) or '0') > tonumber(ARGV[1]) then return { 'limited' } end

local first = redis.call('GET', request)
if first then
  local runId, threadId = string.match(first, '^(%S+) (%S+)$')
  return { 'repeated', runId, threadId }
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', request, ARGV[2] .. ' ' .. ARGV[3], 'PX', ARGV[6])
redis.call('HSET', run, 'status', 'queued', 'epoch', 0, 'events', 0, 'accepted_at', now, unpack(ARGV, 14))
redis.call('PEXPIRE', run, ARGV[6])
redis.call('ZADD', activeRuns, now + ARGV[5], ARGV[4])
redis.call('ZADD', runs, now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', runs, '-inf', now - ARGV[6])
redis.call('ZREMRANGEBYRANK', runs, 0, -1 - ARGV[7])
redis.call('PEXPIRE', runs, ARGV[6])

redis.call('ZADD', threads, now, ARGV[3])
redis.call('HSETNX', threadInfo, ARGV[3], ARGV[8])
redis.call('XADD', thread, 'MAXLEN', '~', ARGV[10], '*', 'm', ARGV[9])
while redis.call('ZCARD', threads) > tonumber(ARGV[11]) do
  local oldest = redis.call('ZPOPMIN', threads)[1]
  redis.call('HDEL', threadInfo, oldest)
  redis.call('DEL', ARGV[13] .. oldest)
end
for _, key in ipairs({ threads, threadInfo, thread }) do redis.call('PEXPIRE', key, ARGV[12]) end
return { 'started', ARGV[2], ARGV[3] }
