--[[
  Requests the cancellation of a run. The worker that executes it is notified on the workers' channel, or with its next
  append. A queued run ends when it is claimed. A run that waits for input is queued again, and then needs a job.

  KEYS[1] run          hash of the run
  KEYS[2] messageRate  counter of the user's messages; the limiter wrote it just before, on the same connection
  KEYS[3] activeRuns   sorted set: "<user id> <run id>" -> when it must have ended, ms
  KEYS[4] runsInFlight sorted set of the user's runs that have not ended
  ARGV[1] the workers' channel
  ARGV[2] run id
  ARGV[3] maximum value of the counter
  ARGV[4] member of activeRuns
  Returns "limited" | "missing" | "finished" | "asked" | "queued"
]]
--@include time
--@include waiting
if tonumber(redis.call('GET', KEYS[2]) or '0') > tonumber(ARGV[3]) then return 'limited' end
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return 'missing' end
if status == 'completed' or status == 'failed' or status == 'cancelled' then return 'finished' end
redis.call('HSET', KEYS[1], 'cancel', 1)
redis.call('SPUBLISH', ARGV[1], ARGV[2])
local now = millis(redis.call('TIME'))
local isQueued = endWait(KEYS[1], { activeRuns = KEYS[3], runsInFlight = KEYS[4] }, ARGV[4], now) == 1
return isQueued and 'queued' or 'asked'
