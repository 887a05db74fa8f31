--[[
  The live connections of a user, as the registry has them.

  KEYS[1] leases       sorted set: connection id -> end of its lease, ms
  KEYS[2] connections  hash: connection id -> "<place in the order of admission> <details>"
  ARGV[1] how many at most
  Returns { how many there are, then per connection: id, end of its lease (ms), details (JSON) }
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local result = { redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf') }
local live = redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
for i = 1, #live, 2 do
  local details = redis.call('HGET', KEYS[2], live[i])
  result[#result + 1] = live[i]
  result[#result + 1] = tonumber(live[i + 1])
  result[#result + 1] = details and string.match(details, '^%d+ (.*)$') or '{}'
end
return result
