--[[
  Removes the leases of closed connections, and one of them from the session of its token.

  KEYS[1] leases, KEYS[2] connections, KEYS[3] evicted
  KEYS[4] due, KEYS[5] session, KEYS[6] token connections: as KEYS[1] to KEYS[3] of unregisterToken
  ARGV[1] member of `due`, or "" if no token was registered
  ARGV[2...] connection ids; the token is that of the first one
  Returns the number of leases that still existed
]]
--@include sessions
local ids = { unpack(ARGV, 2) }
local released = redis.call('ZREM', KEYS[1], unpack(ids))
redis.call('HDEL', KEYS[2], unpack(ids))
redis.call('ZREM', KEYS[3], unpack(ids))
for _, id in ipairs(ids) do redis.call('ZREM', KEYS[3], 'closed:' .. id) end
if ARGV[1] ~= '' then
  leaveSession({ due = KEYS[4], session = KEYS[5], connections = KEYS[6] }, { member = ARGV[1], connection = ids[1] })
end
return released
