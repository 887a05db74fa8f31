--[[
  Closes the oldest connections of a user beyond the cap of the plan that an operator stored, as an admission does. Every
  node that holds the user may ask for it: what is within the cap already stays.

  KEYS[1] leases       sorted set: connection id -> end of its lease, ms
  KEYS[2] connections  hash: connection id -> "<place in the order of admission> <details>"; "#" -> the last place given
  KEYS[3] evicted      sorted set: connection id -> when it may be forgotten, ms
  KEYS[4] account      hash: plan
  ARGV[1] lease, ms
  ARGV[2] the user's channel
  ARGV[3] what the name of a node's channel begins with, see admitConnection
  ARGV[4...] plan, cap, plan, cap, ...; the first cap also serves a plan that is not listed
  Returns the number of connections that lost their place
]]
--@include caps
local keys = { leases = KEYS[1], connections = KEYS[2], evicted = KEYS[3] }
local lease = tonumber(ARGV[1])
local plan = redis.call('HGET', KEYS[4], 'plan')
if not plan then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
prune(keys, now)
return evict(keys, { cap = capOf(plan, ARGV, 4), now = now, lease = lease, channel = ARGV[2], nodeChannel = ARGV[3] })
