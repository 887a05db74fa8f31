--[[
  Removes the leases of closed connections.

  KEYS[1] leases, KEYS[2] connections, KEYS[3] evicted
  ARGV[1...] connection ids
  Returns the number of leases that still existed
]]
local released = redis.call('ZREM', KEYS[1], unpack(ARGV))
redis.call('HDEL', KEYS[2], unpack(ARGV))
redis.call('ZREM', KEYS[3], unpack(ARGV))
for _, id in ipairs(ARGV) do redis.call('ZREM', KEYS[3], 'closed:' .. id) end
return released
