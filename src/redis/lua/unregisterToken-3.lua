--[[
  Removes a connection from its session. With the last connection it also deletes the token and ends the refreshes.

  KEYS[1] due, KEYS[2] session, KEYS[3] connections: as in registerToken
  ARGV[1] member of `due`
  ARGV[2] connection id
  Returns the number of remaining connections of the session
]]
redis.call('SREM', KEYS[3], ARGV[2])
local left = redis.call('SCARD', KEYS[3])
if left == 0 then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return left
