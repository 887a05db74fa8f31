--[[
  The auth service has refused a session for good: forgets its token and tells its connections to end.

  KEYS[1] due, KEYS[2] session, KEYS[3] connections: as in registerToken
  ARGV[1] member of `due`
  ARGV[2] the user's channel
  ARGV[3] what to tell (JSON)
  ARGV[4] the end, ms, of the token that was refused, when that is all that the refusal is about; "" when it is about the
          session, whatever token it has by now
  Returns 1, or 0 when the session is gone or has a newer token by now
]]
if ARGV[4] ~= '' and redis.call('HGET', KEYS[2], 'expires_at') ~= ARGV[4] then return 0 end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SPUBLISH', ARGV[2], 'c' .. ARGV[3])
return 1
