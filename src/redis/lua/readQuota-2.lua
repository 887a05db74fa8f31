--[[
  What a user has used of some limits, and the calls under way.

  KEYS[1] quota         hash of the user's uses, see include/quotas.lua
  KEYS[2] reservations  sorted set of the user's calls under way
  ARGV[1] limits (JSON array)
  Returns { now, calls under way, day or "", month or "", status... }
]]
--@include quotas
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local calls = underWay(KEYS[2], '', now)
local status = readLimits(KEYS[1], calls, cjson.decode(ARGV[1]), now)
local totals = redis.call('HMGET', KEYS[1], 'day', 'month')
return { now, calls[''], totals[1] or '', totals[2] or '', unpack(status) }
