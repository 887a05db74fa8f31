--[[
  Notes what a consumer of the ledger has. A name belongs to the service that used it first: nobody else can declare
  that its records may go.

  KEYS[1] consumers  hash: consumer -> "<sequence> <ms when confirmed> <service>"; what may be trimmed hangs on it, so
                     that it has no expiry
  ARGV[1] consumer
  ARGV[2] service
  ARGV[3] sequence of the last record that it has
  ARGV[4] how many consumers there may be
  Returns "confirmed" | "foreign" | "full"
]]
local consumers = KEYS[1]
local known = redis.call('HGET', consumers, ARGV[1])
if known then
  if string.match(known, '^%S+ %S+ (.*)$') ~= ARGV[2] then return 'foreign' end
elseif redis.call('HLEN', consumers) >= tonumber(ARGV[4]) then
  return 'full'
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', consumers, ARGV[1], ARGV[3] .. ' ' .. now .. ' ' .. ARGV[2])
return 'confirmed'
