-- Stores the first refresh token of a family.
local function startRefreshTokens(session, sealed, digest)
  redis.call('HDEL', session, 'refresh_previous')
  redis.call('HSET', session, 'refresh_token', sealed, 'refresh_digest', digest, 'refresh_family', digest)
end

-- Stores the refresh token that follows the one with the digest `from`, unless a client has replaced that one. A token
-- that follows itself was not used up.
local function followRefreshToken(session, from, sealed, digest)
  if redis.call('HGET', session, 'refresh_digest') ~= from then return false end
  if digest ~= from then redis.call('HSET', session, 'refresh_previous', from) end
  redis.call('HSET', session, 'refresh_token', sealed, 'refresh_digest', digest)
  return true
end

local function dropRefreshToken(session)
  redis.call('HDEL', session, 'refresh_token', 'refresh_digest', 'refresh_previous', 'refresh_family')
end
