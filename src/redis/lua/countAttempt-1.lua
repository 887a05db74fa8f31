--[[
  Allows a login attempt, or returns how long the account is locked. The attempt counts as a failure before its password
  is checked, so parallel attempts on any number of services get no more guesses than sequential ones. A correct
  password removes the key.
  The caller supplies the time: a lock lasts half a minute or more, a precision that the clocks of the services share,
  and a test can move the clock.

  KEYS[1] attempts  hash: failures, locked_until (ms)
  ARGV[1] now, ms
  ARGV[2] number of failures that lock the account
  ARGV[3] duration of the first lock, ms; each further failure doubles it
  ARGV[4] maximum duration of a lock, ms
  ARGV[5] ms after the last attempt until the failures expire
  Returns ms until the account is unlocked, 0 when the attempt is allowed
]]
local attempts, now, allowed = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local known = redis.call('HMGET', attempts, 'failures', 'locked_until')
local lockedUntil = tonumber(known[2] or '0')
-- A lock that ends later than the maximum was set by a clock that has since been set back. The attempt is allowed.
if lockedUntil > now and lockedUntil - now <= tonumber(ARGV[4]) then return lockedUntil - now end

local failures = tonumber(known[1] or '0') + 1
lockedUntil = 0
if failures >= allowed then
  lockedUntil = now + math.min(ARGV[3] * 2 ^ (failures - allowed), tonumber(ARGV[4]))
end
redis.call('HSET', attempts, 'failures', failures, 'locked_until', lockedUntil)
redis.call('PEXPIRE', attempts, ARGV[5])
return 0
