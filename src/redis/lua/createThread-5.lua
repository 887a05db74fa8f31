--[[
  Creates a thread, once per id and within the limit of the plan, and notifies the connections of the user.

  KEYS[1] threads     sorted set of the user's threads, by last change
  KEYS[2] threadInfo  hash: thread id -> JSON
  KEYS[3] thread      stream of the thread's messages
  KEYS[4] log         the user's events, see include/events.lua
  KEYS[5] logState    hash: epoch, seq
  ARGV[1] thread id
  ARGV[2] details of the thread (JSON)
  ARGV[3] maximum number of threads
  ARGV[4] ms that an unused thread is kept
  ARGV[5] timestamp of the event
  ARGV[6] fields of the event (a JSON object with at least one member)
  ARGV[7] the user's channel
  ARGV[8] maximum length of the log
  ARGV[9] maximum age of an event, ms
  ARGV[10] seconds that an unused log keeps its log epoch
  ARGV[11] maximum size of the log, bytes
  Returns { "created" | "exists" | "full", number of threads }
]]
--@include streams
--@include events
--@include threads
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = now - ARGV[4]
local count = countThreads(KEYS[1], since)
if isThread(KEYS[1], ARGV[1], since) then return { 'exists', count } end
if count >= tonumber(ARGV[3]) then return { 'full', count } end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
pruneThreads(KEYS[1], KEYS[2], since)
for key = 1, 3 do redis.call('PEXPIRE', KEYS[key], ARGV[4]) end
local options = { channel = ARGV[7], length = ARGV[8], maxAge = ARGV[9], stateSeconds = ARGV[10], maxBytes = ARGV[11] }
local log = openLog({ log = KEYS[4], logState = KEYS[5] }, options, time)
appendEvent(log, 'thread_updated', ARGV[5], ARGV[6])
closeLog(log)
return { 'created', count + 1 }
