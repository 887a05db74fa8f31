--[[
  Says that a node is alive and what it holds, and counts those that are.

  KEYS[1] nodes    sorted set: node id -> end of its lease, ms
  KEYS[2] details  hash: node id -> what it says of itself (JSON)
  ARGV[1] node id
  ARGV[2] lease, ms
  ARGV[3] details
  Returns the number of nodes alive, this one included
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
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
