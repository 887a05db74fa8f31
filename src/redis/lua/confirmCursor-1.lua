--[[
  Stores the position that a consumer of the ledger confirmed. A consumer name belongs to the service that used it
  first, so that no other service can release its records for trimming.

  KEYS[1] consumers  hash: consumer -> "<sequence> <ms when confirmed> <service>". It has no expiry,
                     because it decides which records may be trimmed
  ARGV[1] consumer
  ARGV[2] service
  ARGV[3] sequence of the last confirmed record
  ARGV[4] maximum number of consumers
  Returns "confirmed" | "foreign" | "full"
]]
--@include time
local consumers = KEYS[1]
local known = redis.call('HGET', consumers, ARGV[1])
if known then
  if string.match(known, '^%S+ %S+ (.*)$') ~= ARGV[2] then return 'foreign' end
elseif redis.call('HLEN', consumers) >= tonumber(ARGV[4]) then
  return 'full'
end
local now = string.format('%.0f', millis(redis.call('TIME')))
redis.call('HSET', consumers, ARGV[1], ARGV[3] .. ' ' .. now .. ' ' .. ARGV[2])
return 'confirmed'
