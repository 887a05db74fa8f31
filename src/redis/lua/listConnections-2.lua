--[[
  Lists the live connections of a user from the connection registry.

  KEYS[1] leases       sorted set: connection id -> expiry of its lease, ms
  KEYS[2] connections  hash: connection id -> "<admission order> <details>"
  ARGV[1] maximum number of connections to list
  Returns { total number, then per connection { id, expiry of its lease (ms), details (JSON) } }
]]
--@include time
local now = millis(redis.call('TIME'))
local result = { redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf') }
local live = redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
for i = 1, #live, 2 do
  local details = redis.call('HGET', KEYS[2], live[i])
  local json = details and string.match(details, '^%d+ (.*)$') or '{}'
  result[#result + 1] = { live[i], tonumber(live[i + 1]), json }
end
return result
