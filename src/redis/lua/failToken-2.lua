--[[
  Handles a refresh that failed temporarily: schedules the next attempt and notifies the connections of the session.

  KEYS[1] due, KEYS[2] session: as in registerToken
  ARGV[1] member of `due`
  ARGV[2] expiry, ms, of the token that was to be refreshed
  ARGV[3] time of the next attempt, ms
  ARGV[4] "degraded" or "refresh_failed"
  ARGV[5] the user's channel
  ARGV[6] control message for the connections (JSON)
  Returns 1, or 0 when the session no longer exists or has a newer token
]]
local due, session, member = KEYS[1], KEYS[2], ARGV[1]
local ends = redis.call('HGET', session, 'expires_at')
if not ends then
  redis.call('ZREM', due, member)
  return 0
end
if ends ~= ARGV[2] then return 0 end
redis.call('HINCRBY', session, 'failures', 1)
redis.call('HSET', session, 'state', ARGV[4])
redis.call('ZADD', due, ARGV[3], member)
redis.call('SPUBLISH', ARGV[5], 'c' .. ARGV[6])
return 1
