--[[
  Claims a run for one worker and assigns the next fencing token (field `epoch`), so that the previous owner can append
  nothing more. The tokens of a run increase by random amounts: after Redis lost a claim, the next one must not assign
  the same token again.

  KEYS[1] run  hash of the run
  ARGV[1] amount to add to the fencing token
  Returns { "missing" } or { "finished" } or { "claimed", "now", ms, "waited", ms that the run has waited for
          input, field, value, ... }
]]
--@include time
--@include waiting
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return { 'missing' } end
if status == 'completed' or status == 'failed' or status == 'cancelled' then return { 'finished' } end
redis.call('HINCRBY', KEYS[1], 'epoch', ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'running')
local now = millis(redis.call('TIME'))
local result = { 'claimed', 'now', tostring(now), 'waited', tostring(waitedForInput(KEYS[1], now)) }
local header = #result
for i, value in ipairs(redis.call('HGETALL', KEYS[1])) do result[header + i] = value end
return result
