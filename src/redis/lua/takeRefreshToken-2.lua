--[[
  Takes the refresh token out of its session before a worker sends it to the provider, so that no token is sent twice. The
  digest is kept for all sessions of the user: a client can hand over one token in two sessions.

  KEYS[1] session, KEYS[2] used: as in registerToken
  ARGV[1] expiry, ms, of the access token that is to be refreshed
  ARGV[2] digest of the refresh token
  ARGV[3] seconds for which the digest is kept
  ARGV[4] maximum number of digests
  Returns the refresh token (sealed), or "" when the session has another one or the token has been sent before
]]
--@include time
local session, used, digest = KEYS[1], KEYS[2], ARGV[2]
local kept = redis.call('HMGET', session, 'expires_at', 'refresh_digest', 'refresh_token')
if kept[1] ~= ARGV[1] or kept[2] ~= digest or not kept[3] then return '' end
redis.call('HDEL', session, 'refresh_token')
if redis.call('ZADD', used, 'NX', millis(redis.call('TIME')), digest) == 0 then return '' end
redis.call('ZREMRANGEBYRANK', used, 0, -1 - tonumber(ARGV[4]))
redis.call('EXPIRE', used, ARGV[3])
return kept[3]
