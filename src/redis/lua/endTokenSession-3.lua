--[[
  Ends a session that the auth service refused permanently: deletes its token and notifies its connections, which then
  close.

  KEYS[1] due, KEYS[2] session, KEYS[3] connections: as in registerToken
  ARGV[1] member of `due`
  ARGV[2] the user's channel
  ARGV[3] control message for the connections (JSON)
  ARGV[4] expiry, ms, of the refused token, if the refusal concerns only that token; "" if it concerns the session,
          with any token
  Returns 1, or 0 when the session no longer exists or has a newer token
]]
if ARGV[4] ~= '' and redis.call('HGET', KEYS[2], 'expires_at') ~= ARGV[4] then return 0 end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SPUBLISH', ARGV[2], 'c' .. ARGV[3])
return 1
