--[[
  The time for which a run waits for input of its user. In the hash of the run
  - `waiting_since` is the time at which the run was suspended, absent while it is queued or executed,
  - `paused_ms` is the sum of the earlier waits, which do not count towards the time limit of the run,
  - `remaining_ms` is the time from the end of the wait until the run must have ended.
]]

-- Returns the milliseconds for which the run has waited so far.
local function waitedForInput(run, now)
  local fields = redis.call('HMGET', run, 'paused_ms', 'waiting_since')
  return tonumber(fields[1] or '0') + (fields[2] and now - fields[2] or 0)
end

-- Changes when the sweep takes a run, and when it must have ended and no longer counts as in flight.
local function setDeadline(sets, member, sweptAt, endsAt)
  redis.call('ZADD', sets.activeRuns, sweptAt, member)
  redis.call('ZADD', sets.runsInFlight, endsAt, string.match(member, '%S+$'))
  local last = redis.call('ZRANGE', sets.runsInFlight, 0, 0, 'REV', 'WITHSCORES')[2]
  redis.call('PEXPIREAT', sets.runsInFlight, last)
end

-- Ends the wait of a run, which then needs a job. Returns 1, or 0 if the run does not wait.
local function endWait(run, sets, member, now)
  local fields = redis.call('HMGET', run, 'waiting_since', 'remaining_ms')
  if not fields[1] then return 0 end
  redis.call('HSET', run, 'status', 'queued', 'paused_ms', waitedForInput(run, now))
  redis.call('HDEL', run, 'waiting_since')
  setDeadline(sets, member, now + fields[2], now + fields[2])
  return 1
end
