--[[
  Makes a thread, once per id, within the number a plan allows.

  KEYS[1] threads     sorted set of the user's threads, by last change
  KEYS[2] threadInfo  hash: thread id -> JSON
  KEYS[3] thread      stream of the thread's messages
  ARGV[1] thread id
  ARGV[2] what to know of the thread (JSON)
  ARGV[3] greatest number of threads
  ARGV[4] ms that an unused thread is kept
  Returns { "created" | "exists" | "full", number of threads }
]]
local count = redis.call('ZCARD', KEYS[1])
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return { 'exists', count } end
if count >= tonumber(ARGV[3]) then return { 'full', count } end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[4]) end
return { 'created', count + 1 }
