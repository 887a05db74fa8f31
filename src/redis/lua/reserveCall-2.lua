--[[
  Reserves quota and concurrency for a tool call within the user's limits. Sent twice, it reserves once.

  KEYS[1] quota         hash of the user's counted uses, see include/quotas.lua
  KEYS[2] reservations  sorted set of the user's reservations, one per call in flight
  ARGV[1] request (JSON): member, concurrency, forMs, limits
  Returns { "reserved", now, status... } or { "refused", now, index of the limit or 0, status... }
]]
--@include time
--@include quotas
local now = millis(redis.call('TIME'))
local allowed, second, third = reserve(KEYS[1], KEYS[2], cjson.decode(ARGV[1]), now)
if allowed then return { 'reserved', now, unpack(second) } end
return { 'refused', now, second, unpack(third) }
