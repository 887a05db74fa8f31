--[[
  Claims a run for one worker and assigns the next fencing token (field `epoch`), so that the previous owner can append
  nothing more. The tokens of a run increase by random amounts: after Redis lost a claim, the next one must not assign
  the same token again.

  A second job of a run must not interrupt the worker of the first one. A job that is delivered for the first time
  therefore claims a run only if no other job has.

  KEYS[1] run  hash of the run
  ARGV[1] amount to add to the fencing token
  ARGV[2] id of the job for its first delivery; "" to take the run over
  Returns { "missing" }, { "finished" } (also for a second job), or { "claimed", "now", ms, "waited", ms that the run has
          waited for input, field, value, ... }
]]
--@include time
--@include waiting
local stored = redis.call('HMGET', KEYS[1], 'status', 'job')
local status = stored[1]
if not status then return { 'missing' } end
if status == 'completed' or status == 'failed' or status == 'cancelled' then return { 'finished' } end
if ARGV[2] ~= '' then
  if status ~= 'queued' and stored[2] ~= ARGV[2] then return { 'finished' } end
  redis.call('HSET', KEYS[1], 'job', ARGV[2])
end
redis.call('HINCRBY', KEYS[1], 'epoch', ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'running')
local now = millis(redis.call('TIME'))
local result = { 'claimed', 'now', tostring(now), 'waited', tostring(waitedForInput(KEYS[1], now)) }
local header = #result
for i, value in ipairs(redis.call('HGETALL', KEYS[1])) do result[header + i] = value end
return result
