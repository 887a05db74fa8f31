--[[
  The auth service has refused a session for good: forgets its token and tells its connections to end.

  KEYS[1] due, KEYS[2] session, KEYS[3] connections: as in holdToken
  ARGV[1] member of `due`
  ARGV[2] the user's channel
  ARGV[3] what to tell (JSON)
]]
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SPUBLISH', ARGV[2], 'c' .. ARGV[3])
return 1
