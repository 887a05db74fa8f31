--[[
  Stores that a token or a session is revoked and announces it, in one step: whoever reads the stream from where it stood
  before it read the set has missed nothing. Repeated, it announces again and never shortens a revocation.

  KEYS[1] revocations    sorted set: subject -> the time after which it need not be known any more, ms
  KEYS[2] announcements  stream
  ARGV[1] subject, "jti:<id>" or "sid:<id>"
  ARGV[2] for how long it must be known, ms
  ARGV[3] entries that the stream keeps, about
  ARGV[4] how long the stream is kept when nothing is announced, ms
  ARGV[5] sharded channel to say it on
  ARGV[6] trace of the request that decided it, "" for none
  Returns the time until which it is known, ms
]]
local revocations, announcements = KEYS[1], KEYS[2]
local subject, duration = ARGV[1], tonumber(ARGV[2])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', revocations, '-inf', now)
redis.call('ZADD', revocations, 'GT', now + duration, subject)
if redis.call('PTTL', revocations) < duration then redis.call('PEXPIRE', revocations, duration) end

local known = string.format('%.0f', redis.call('ZSCORE', revocations, subject))
local entry = { 'kind', 'revoked', 'subject', subject, 'until', known }
if ARGV[6] ~= '' then entry[7], entry[8] = 'trace', ARGV[6] end
redis.call('XADD', announcements, 'MAXLEN', '~', ARGV[3], '*', unpack(entry))
redis.call('PEXPIRE', announcements, ARGV[4])
redis.call('SPUBLISH', ARGV[5], 'revoked')
return tonumber(known)
