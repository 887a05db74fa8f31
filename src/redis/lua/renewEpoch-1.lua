--[[
  Gives a user's event log a new log epoch, after Redis was restored from a copy: events with the same `seq` may have been
  delivered after the copy was made. `seq` and the time at which the log expires stay as they are.

  KEYS[1] logState  hash: epoch, seq
  Returns 1, or 0 if there is no such log
]]
--@include time
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'epoch', newEpoch(redis.call('TIME')))
return 1
