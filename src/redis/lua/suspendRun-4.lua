--[[
  Suspends a run that waits for input of its user: no worker executes it until one of the input requests is answered or
  expires. A run with a new answer, or one to be cancelled, is not suspended.

  KEYS[1] run          hash of the run
  KEYS[2] activeRuns   sorted set: "<user id> <run id>" -> when it must have ended, ms
  KEYS[3] runsInFlight sorted set of the user's runs that have not ended
  KEYS[4] runs         sorted set of the user's stored runs
  ARGV[1] member of activeRuns
  ARGV[2] fencing token of the claim
  ARGV[3] ms until the first of the input requests expires
  ARGV[4] ms from the end of the wait until the run must have ended
  ARGV[5] ms that the run is stored after the wait
  ARGV[6...] ids of the input requests that the agent waits for
  Returns "waiting" | "answered" | "fenced" | "finished", or "behind" when Redis lost the run or the claim
]]
--@include time
--@include waiting
local run = KEYS[1]
local stored = redis.call('HMGET', run, 'epoch', 'status', 'cancel')
local epoch, status = stored[1], stored[2]
if status == 'completed' or status == 'failed' or status == 'cancelled' then return 'finished' end
if not epoch or tonumber(epoch) < tonumber(ARGV[2]) then return 'behind' end
if epoch ~= ARGV[2] then return 'fenced' end
if stored[3] == '1' then return 'answered' end
for i = 6, #ARGV do
  if redis.call('HEXISTS', run, 'answer:' .. ARGV[i]) == 1 then return 'answered' end
end
local now = millis(redis.call('TIME'))
redis.call('HSETNX', run, 'waiting_since', now)
redis.call('HSET', run, 'status', 'waiting', 'remaining_ms', ARGV[4])
-- The run continues after the sweep has ended its wait, so it counts as in flight in between.
setDeadline({ activeRuns = KEYS[2], runsInFlight = KEYS[3] }, ARGV[1], now + ARGV[3], now + ARGV[3] + ARGV[4])
local kept = ARGV[3] + ARGV[5]
-- The list does not expire before the run: an erasure of the user finds the run by it.
for _, key in ipairs({ run, KEYS[4] }) do
  if redis.call('PTTL', key) < kept then redis.call('PEXPIRE', key, kept) end
end
return 'waiting'
