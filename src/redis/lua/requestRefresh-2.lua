--[[
  Schedules the refresh of a session token for now, unless a worker is refreshing it.

  KEYS[1] due, KEYS[2] session: as in registerToken
  ARGV[1] member of `due`
  ARGV[2] now, ms
  Returns 1, or 0 when the session has no token to refresh
]]
local state = redis.call('HGET', KEYS[2], 'state')
if not state then return 0 end
if state ~= 'refreshing' then redis.call('ZADD', KEYS[1], 'XX', 'LT', ARGV[2], ARGV[1]) end
return 1
