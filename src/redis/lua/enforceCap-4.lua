--[[
  Closes the oldest connections of a user beyond the cap of the plan that an operator stored, as an admission does. Every
  node that holds the user may ask for it: what is within the cap already stays.

  KEYS[1] leases       sorted set: connection id -> end of its lease, ms
  KEYS[2] connections  hash: connection id -> "<place in the order of admission> <details>"; "#" -> the last place given
  KEYS[3] evicted      sorted set: connection id -> when it may be forgotten, ms
  KEYS[4] account      hash: plan
  ARGV[1] lease, ms
  ARGV[2] the user's channel
  ARGV[3...] plan, cap, plan, cap, ...; the first cap also serves a plan that is not listed
  Returns the number of connections that lost their place
]]
local leases, connections, evicted, account = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local lease, channel = tonumber(ARGV[1]), ARGV[2]

local plan = redis.call('HGET', account, 'plan')
if not plan then return 0 end
local cap = tonumber(ARGV[4])
for i = 3, #ARGV, 2 do
  if ARGV[i] == plan then cap = tonumber(ARGV[i + 1]) end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = redis.call('ZRANGE', leases, '(' .. now, '+inf', 'BYSCORE')
local excess = #live - cap
if excess <= 0 then return 0 end

local places = {}
for i, id in ipairs(live) do
  places[i] = { tonumber(string.match(redis.call('HGET', connections, id) or '0', '^%d+')), id }
end
table.sort(places, function(a, b) return a[1] < b[1] end)
local ids = {}
for i = 1, excess do
  ids[i] = places[i][2]
  redis.call('ZADD', evicted, now + 2 * lease, ids[i])
end
redis.call('ZREM', leases, unpack(ids))
redis.call('HDEL', connections, unpack(ids))
redis.call('PEXPIRE', evicted, 2 * lease)
redis.call('SPUBLISH', channel, 'c' .. cjson.encode({ control = 'evict', connection_ids = ids }))
return excess
