--[[
  Creates a thread, once per id and within the limit of the plan, and notifies the connections of the user.

  KEYS[1] threads     sorted set of the user's threads, by last change
  KEYS[2] threadInfo  hash: thread id -> JSON
  KEYS[3] thread      stream of the thread's messages
  KEYS[4] log         the user's events, see include/events.lua
  KEYS[5] logState    hash: epoch, seq
  ARGV[1...7] the log, see include/events.lua
  ARGV[8] thread id
  ARGV[9] details of the thread (JSON)
  ARGV[10] maximum number of threads
  ARGV[11] ms that an unused thread is kept
  ARGV[12] timestamp of the event
  ARGV[13] fields of the event (a JSON object with at least one member)
  Returns { "created" | "exists" | "full", number of threads }
]]
--@include time
--@include streams
--@include events
--@include threads
local time = redis.call('TIME')
local now = millis(time)
local since = now - ARGV[11]
local count = countThreads(KEYS[1], since)
if isThread(KEYS[1], ARGV[8], since) then return { 'exists', count } end
if count >= tonumber(ARGV[10]) then return { 'full', count } end
redis.call('ZADD', KEYS[1], now, ARGV[8])
redis.call('HSET', KEYS[2], ARGV[8], ARGV[9])
pruneThreads(KEYS[1], KEYS[2], since)
-- An hour more: `startRun` does not renew each expiry with each run.
for key = 1, 3 do redis.call('PEXPIRE', KEYS[key], ARGV[11] + 3600000) end
local log = openLog(KEYS[4], KEYS[5], time)
appendEvent(log, 'thread_updated', ARGV[12], string.sub(ARGV[13], 2))
closeLog(log)
return { 'created', count + 1 }
