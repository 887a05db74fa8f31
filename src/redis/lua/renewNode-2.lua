--[[
  Renews the lease of a node, stores its details, removes expired nodes and counts the live ones.

  KEYS[1] nodes    sorted set: node id -> expiry of its lease, ms
  KEYS[2] details  hash: node id -> details that the node reports (JSON)
  ARGV[1] node id
  ARGV[2] duration of a lease, ms
  ARGV[3] details
  Returns the number of live nodes, including this one
]]
--@include time
local now = millis(redis.call('TIME'))
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
local dead = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE')
if #dead > 0 then
  redis.call('ZREM', KEYS[1], unpack(dead))
  redis.call('HDEL', KEYS[2], unpack(dead))
end
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2])
return redis.call('ZCARD', KEYS[1])
