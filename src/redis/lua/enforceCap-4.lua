--[[
  Evicts the oldest connections of a user above the cap of the stored plan, as an admission does. Every node that serves
  the user may run it: connections within the cap stay.

  KEYS[1] leases       sorted set: connection id -> expiry of its lease, ms
  KEYS[2] connections  hash: connection id -> "<admission order> <details>"; "#" -> the last order assigned
  KEYS[3] evicted      sorted set: connection id -> when the entry may be removed, ms
  KEYS[4] account      hash: plan
  ARGV[1] duration of a lease, ms
  ARGV[2] the user's channel
  ARGV[3] prefix of the node channels, see admitConnection
  ARGV[4...] plan, cap, plan, cap, ...; the first cap also serves a plan that is not listed
  Returns the number of evicted connections
]]
--@include time
--@include caps
local keys = { leases = KEYS[1], connections = KEYS[2], evicted = KEYS[3] }
local lease = tonumber(ARGV[1])
local plan = redis.call('HGET', KEYS[4], 'plan')
if not plan then return 0 end
local now = millis(redis.call('TIME'))
prune(keys, now)
return evict(keys, { cap = capOf(plan, ARGV, 4), now = now, lease = lease, channel = ARGV[2], nodeChannel = ARGV[3] })
