--[[
  Stores the refresh token after a refresh that delivered no newer access token: the same one if the provider has
  certainly not acted on it, or its successor.

  KEYS[1] session, KEYS[2] used: as in registerToken
  ARGV[1] digest of the refresh token that was taken
  ARGV[2] refresh token, sealed
  ARGV[3] its digest
  Returns 1, or 0 when the session no longer exists or has another refresh token
]]
--@include refreshing
if ARGV[1] == ARGV[3] then redis.call('ZREM', KEYS[2], ARGV[1]) end
return followRefreshToken(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) and 1 or 0
