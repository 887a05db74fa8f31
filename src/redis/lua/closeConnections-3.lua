--[[
  Removes the leases of a user's connections because of an admin action, and notifies the nodes that own them. A node
  that misses the message finds the connection under `evicted`, as `closed:<id>`, at its next renewal.

  KEYS[1] leases       sorted set: connection id -> expiry of its lease, ms
  KEYS[2] connections  hash of the connections' details
  KEYS[3] evicted      sorted set of evicted and closed connections
  ARGV[1] duration of a lease, ms
  ARGV[2] the user's channel
  ARGV[3] maximum number of connections, the oldest leases first
  ARGV[4...] connection ids; none for all
  Returns the ids of the connections that were live
]]
--@include time
local leases, connections, evicted = KEYS[1], KEYS[2], KEYS[3]
local lease, channel, most = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local now = millis(redis.call('TIME'))

local ids = {}
if #ARGV == 3 then
  ids = redis.call('ZRANGE', leases, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, most)
else
  for i = 4, #ARGV do
    if tonumber(redis.call('ZSCORE', leases, ARGV[i]) or '0') > now then ids[#ids + 1] = ARGV[i] end
  end
end
if #ids == 0 then return ids end
for _, id in ipairs(ids) do redis.call('ZADD', evicted, now + 2 * lease, 'closed:' .. id) end
redis.call('PEXPIRE', evicted, 2 * lease)
redis.call('ZREM', leases, unpack(ids))
redis.call('HDEL', connections, unpack(ids))
redis.call('SPUBLISH', channel, 'c' .. cjson.encode({ control = 'close', connection_ids = ids }))
return ids
