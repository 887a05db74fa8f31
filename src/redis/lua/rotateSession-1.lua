--[[
  Uses a refresh token of a session. Its first use makes its successor the current token. A client that repeats the use
  within the grace period gets the same successor, because the reply may have been lost, or two tabs may have refreshed
  at once. Any other use of a used token indicates theft and ends the session.
  Only digests are stored: the caller derives the successor from the token, and always derives the same one.
  The caller supplies the time: seconds of difference between the clocks of services do not affect the grace period and
  the lifetime, and a test can move the clock.

  KEYS[1] session  hash: user_id, email, client, epoch, started_at (ms), expires_at (ms), current (digest of the current
                   token), "used:<digest>" -> when that token was used, ms; kept until the grace period ends
  ARGV[1] digest of the token
  ARGV[2] digest of its successor
  ARGV[3] client
  ARGV[4] now, ms
  ARGV[5] grace period, ms
  ARGV[6] lifetime of the successor, ms
  Returns { "rotated" | "repeated", user_id, email, epoch, expires_at, started_at } or { "reused", user_id }
          or { "refused" }: the session does not exist or belongs to another client, or the successor was derived with
          a key that is no longer in use
]]
local session, digest, successor, client = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local now, grace, lifetime = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local known = redis.call('HMGET', session, 'user_id', 'email', 'epoch', 'client', 'current', 'expires_at', 'started_at')
local userId, email, epoch, owner, current, expiresAt, startedAt = unpack(known)
startedAt = tonumber(startedAt or '0')
-- A use that is further in the future than the grace period was written by a clock that has since been set back.
local function isOver(usedAt) return math.abs(now - usedAt) > grace end
if not userId or tonumber(expiresAt) <= now then return { 'refused' } end

if digest == current then
  if client ~= owner then return { 'refused' } end
  expiresAt = now + lifetime
  redis.call('HSET', session, 'current', successor, 'expires_at', expiresAt, 'used:' .. digest, now)
  local fields = redis.call('HGETALL', session)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 5) == 'used:' and isOver(tonumber(fields[i + 1])) then
      redis.call('HDEL', session, fields[i])
    end
  end
  redis.call('PEXPIRE', session, lifetime)
  return { 'rotated', userId, email, epoch, expiresAt, startedAt }
end

local usedAt = tonumber(redis.call('HGET', session, 'used:' .. digest) or '-inf')
if client ~= owner or isOver(usedAt) then
  redis.call('DEL', session)
  return { 'reused', userId }
end
if successor ~= current and redis.call('HEXISTS', session, 'used:' .. successor) == 0 then return { 'refused' } end
return { 'repeated', userId, email, epoch, tonumber(expiresAt), startedAt }
