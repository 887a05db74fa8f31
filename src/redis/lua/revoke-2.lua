--[[
  Stores the revocation of a token or a session and appends an invalidation, in one step. A reader that takes its stream
  position before it reads the set therefore misses nothing. Repeated, it appends another invalidation and never
  shortens a revocation.

  KEYS[1] revocations    sorted set: subject -> time after which the revocation is no longer needed, ms
  KEYS[2] invalidations  stream of invalidations
  ARGV[1] subject, "jti:<id>" or "sid:<id>"
  ARGV[2] duration for which it must be stored, ms
  ARGV[3] approximate number of entries that the stream keeps
  ARGV[4] expiry of the stream after its last entry, ms
  ARGV[5] sharded channel for the wake-up
  ARGV[6] trace of the request that revoked it, "" for none
  Returns the time until which the revocation is stored, ms
]]
--@include time
local revocations, invalidations = KEYS[1], KEYS[2]
local subject, duration = ARGV[1], tonumber(ARGV[2])

local now = millis(redis.call('TIME'))
redis.call('ZREMRANGEBYSCORE', revocations, '-inf', now)
redis.call('ZADD', revocations, 'GT', now + duration, subject)
if redis.call('PTTL', revocations) < duration then redis.call('PEXPIRE', revocations, duration) end

local known = string.format('%.0f', redis.call('ZSCORE', revocations, subject))
local entry = { 'kind', 'revoked', 'subject', subject, 'until', known }
if ARGV[6] ~= '' then entry[7], entry[8] = 'trace', ARGV[6] end
redis.call('XADD', invalidations, 'MAXLEN', '~', ARGV[3], '*', unpack(entry))
redis.call('PEXPIRE', invalidations, ARGV[4])
redis.call('SPUBLISH', ARGV[5], 'revoked')
return tonumber(known)
