--[[
  Renews the leases of one node's connections of several users in one partition, and returns the heads of the users' event
  logs. A node that missed a published event thereby notices it without another round trip.

  Four KEYS per user:
    leases       sorted set: connection id -> expiry of its lease, ms
    connections  hash of the connections' details
    evicted      sorted set of evicted and closed connections
    logState     hash: epoch, seq
  ARGV[1] duration of a lease, ms
  ARGV[2...] per user: number of connection ids, then the ids
  Returns per user { epoch, seq, then per connection "renewed" | "evicted" | "closed" | "missing" }
]]
--@include time
local lease = tonumber(ARGV[1])
local now = millis(redis.call('TIME'))

local function stateOf(leases, evicted, id)
  if redis.call('ZSCORE', leases, id) then
    redis.call('ZADD', leases, now + lease, id)
    return 'renewed'
  end
  if redis.call('ZSCORE', evicted, id) then return 'evicted' end
  return redis.call('ZSCORE', evicted, 'closed:' .. id) and 'closed' or 'missing'
end

local results = {}
local at = 2
for first = 1, #KEYS, 4 do
  local leases, connections, evicted, logState = KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3]
  local log = redis.call('HMGET', logState, 'epoch', 'seq')
  local result = { log[1] or '', tonumber(log[2] or '0') }
  local last = at + tonumber(ARGV[at])
  for i = at + 1, last do result[#result + 1] = stateOf(leases, evicted, ARGV[i]) end
  at = last + 1
  redis.call('PEXPIRE', leases, 2 * lease)
  redis.call('PEXPIRE', connections, 2 * lease)
  results[#results + 1] = result
end
return results
