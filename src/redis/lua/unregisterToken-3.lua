--[[
  A connection has left its session; with the last one the session's token goes too, and nothing is refreshed any more.

  KEYS[1] due, KEYS[2] session, KEYS[3] connections: as in registerToken
  ARGV[1] member of `due`
  ARGV[2] connection id
  Returns how many connections the session has left
]]
redis.call('SREM', KEYS[3], ARGV[2])
local left = redis.call('SCARD', KEYS[3])
if left == 0 then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return left
