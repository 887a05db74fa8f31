--[[
  Leaves a session to its client: no refresh is due until a newer token is presented. The entry remains until the end of
  the session, because an erasure finds the session by it.

  KEYS[1] due, KEYS[2] session: as in registerToken
  ARGV[1] member of `due`
  ARGV[2] expiry, ms, of the token that was to be refreshed
  ARGV[3] ms after the end of the session at which the entry is removed
  Returns 1, or 0 when the session no longer exists or has a newer token
]]
local due, session, member = KEYS[1], KEYS[2], ARGV[1]
local ends = redis.call('HGET', session, 'expires_at')
if ends ~= ARGV[2] then return 0 end
redis.call('ZADD', due, 'XX', redis.call('PEXPIRETIME', session) + tonumber(ARGV[3]), member)
return 1
