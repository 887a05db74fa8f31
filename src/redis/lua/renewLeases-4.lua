--[[
  Renews the leases of one user's connections on one node, and returns the head of the user's event log. A node that
  missed a published event thereby notices it without another round trip.

  KEYS[1] leases       sorted set: connection id -> expiry of its lease, ms
  KEYS[2] connections  hash of the connections' details
  KEYS[3] evicted      sorted set of evicted and closed connections
  KEYS[4] logState     hash: epoch, seq
  ARGV[1] duration of a lease, ms
  ARGV[2...] connection ids
  Returns { epoch, seq, then per connection "renewed" | "evicted" | "closed" | "missing" }
]]
--@include time
local leases, connections, evicted, logState = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local lease = tonumber(ARGV[1])
local now = millis(redis.call('TIME'))

local log = redis.call('HMGET', logState, 'epoch', 'seq')
local result = { log[1] or '', tonumber(log[2] or '0') }
for i = 2, #ARGV do
  local held = redis.call('ZSCORE', leases, ARGV[i])
  if held then
    redis.call('ZADD', leases, now + lease, ARGV[i])
    result[i + 1] = 'renewed'
  elseif redis.call('ZSCORE', evicted, ARGV[i]) then
    result[i + 1] = 'evicted'
  elseif redis.call('ZSCORE', evicted, 'closed:' .. ARGV[i]) then
    result[i + 1] = 'closed'
  else
    result[i + 1] = 'missing'
  end
end
redis.call('PEXPIRE', leases, 2 * lease)
redis.call('PEXPIRE', connections, 2 * lease)
return result
