--[[
  Lets an attempt to log in go on, or says how long the account is locked. The attempt counts as a failed one before its
  password is looked at, so that attempts in parallel, on any number of services, get no more guesses than one after the
  other; the right password removes the key.
  The time comes from the caller: locks last half a minute and more, which the clocks of services agree on, and a test
  can move it.

  KEYS[1] attempts  hash: failures, locked_until (ms)
  ARGV[1] now, ms
  ARGV[2] how many failures lock the account
  ARGV[3] ms of the first lock; each further failure doubles it
  ARGV[4] ms of the longest lock
  ARGV[5] ms after the last attempt that the failures are forgotten
  Returns ms until the account is unlocked, 0 when the attempt may go on
]]
local attempts, now, allowed = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local known = redis.call('HMGET', attempts, 'failures', 'locked_until')
local lockedUntil = tonumber(known[2] or '0')
-- One that ends later than any lock was made by a clock that has been set back since: the account gets its next guess.
if lockedUntil > now and lockedUntil - now <= tonumber(ARGV[4]) then return lockedUntil - now end

local failures = tonumber(known[1] or '0') + 1
lockedUntil = 0
if failures >= allowed then
  lockedUntil = now + math.min(ARGV[3] * 2 ^ (failures - allowed), tonumber(ARGV[4]))
end
redis.call('HSET', attempts, 'failures', failures, 'locked_until', lockedUntil)
redis.call('PEXPIRE', attempts, ARGV[5])
return 0
