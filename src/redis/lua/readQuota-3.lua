--[[
  Reads the uses of some limits of a user, and the calls and runs in flight.

  KEYS[1] quota         hash of the user's counted uses, see include/quotas.lua
  KEYS[2] reservations  sorted set of the user's reservations, one per call in flight
  KEYS[3] runsInFlight  sorted set of the user's runs that have not ended, scored by their deadline
  ARGV[1] limits (JSON array)
  Returns { now, calls in flight, runs in flight, day or "", month or "", status... }
]]
--@include time
--@include quotas
local now = millis(redis.call('TIME'))
local calls = inFlight(KEYS[2], '', now)
local status = readLimits(KEYS[1], calls, cjson.decode(ARGV[1]), now)
local totals = redis.call('HMGET', KEYS[1], 'day', 'month')
local runs = redis.call('ZCOUNT', KEYS[3], '(' .. now, '+inf')
return { now, calls[''], runs, totals[1] or '', totals[2] or '', unpack(status) }
