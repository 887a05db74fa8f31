--[[
  Claims a run for one worker and assigns the next fencing token (field `epoch`), so that the previous owner can append
  nothing more. The tokens of a run increase by random amounts: after Redis lost a claim, the next one must not assign
  the same token again.

  A second job of a run must not interrupt the worker of the first one. A job that is delivered for the first time
  therefore claims a run only if no other job has.

  KEYS[1] run  hash of the run
  ARGV[1] amount to add to the fencing token
  ARGV[2] id of the job for its first delivery; "" to take the run over
  Returns { "missing" }, { "finished" } (also for a second job), or { "claimed", now, ms that the run has waited for input,
          { field, value, ... } }
]]
--@include time
local run = redis.call('HGETALL', KEYS[1])
local at = {}
for i = 1, #run, 2 do at[run[i]] = i + 1 end
local status = run[at.status]
if not status then return { 'missing' } end
if status == 'completed' or status == 'failed' or status == 'cancelled' then return { 'finished' } end
if ARGV[2] ~= '' and status ~= 'queued' and run[at.job] ~= ARGV[2] then return { 'finished' } end
-- The tokens are integers below 2^53.
local token = string.format('%d', run[at.epoch] + ARGV[1])
if ARGV[2] ~= '' or at.job then
  redis.call('HSET', KEYS[1], 'epoch', token, 'status', 'running', 'job', ARGV[2])
else
  redis.call('HSET', KEYS[1], 'epoch', token, 'status', 'running')
end
run[at.epoch] = token
local now = millis(redis.call('TIME'))
-- See include/waiting.lua.
local waited = (run[at.paused_ms] or 0) + (at.waiting_since and now - run[at.waiting_since] or 0)
return { 'claimed', now, waited, run }
