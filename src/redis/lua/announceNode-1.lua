--[[
  Says that a node is alive, and counts those that are.

  KEYS[1] nodes  sorted set: node id -> end of its lease, ms
  ARGV[1] node id
  ARGV[2] lease, ms
  Returns the number of nodes alive, this one included
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
return redis.call('ZCARD', KEYS[1])
