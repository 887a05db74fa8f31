--[[
  Revokes the tokens of a user that were issued before a time. A time earlier than the stored one changes nothing.

  KEYS[1] account  hash: revoked_before, ms, and the other account fields; it never expires
  ARGV[1] time, ms, or "" for now
  Returns the time that is in effect, ms
]]
--@include time
local before = tonumber(ARGV[1]) or millis(redis.call('TIME'))
local known = tonumber(redis.call('HGET', KEYS[1], 'revoked_before') or '0')
if before <= known then return known end
redis.call('HSET', KEYS[1], 'revoked_before', string.format('%.0f', before))
return before
