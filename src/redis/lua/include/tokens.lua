--[[
  Registers a token in its session, for the scripts that admit a connection or replace a token. Include `refreshing` before.
  keys: { due, session, connections, used }, as in registerToken.
  presented: { member, connection, token, ends, refreshAt, grace, channel, session, refreshToken, digest, predecessor }, as
  the arguments of registerToken.
  Returns the reply of registerToken.
]]
local function registerToken(keys, presented)
  local due, session, connections, used = keys.due, keys.session, keys.connections, keys.used
  local member, connection, token = presented.member, presented.connection, presented.token
  local ends, grace = tonumber(presented.ends), tonumber(presented.grace)
  local refreshToken, digest, predecessor = presented.refreshToken, presented.digest, presented.predecessor

  if connection ~= '' then
    redis.call('SADD', connections, connection)
  elseif redis.call('EXISTS', connections) == 0 then
    redis.call('DEL', session)
    redis.call('ZREM', due, member)
    return { 'gone' }
  end

  local kept = redis.call('HMGET', session, 'token', 'expires_at', 'refreshes', 'refresh_digest', 'refresh_previous')
  local keptUntil = tonumber(kept[2] or '0')
  local refreshes = tonumber(kept[3] or '0')
  local isNewer = ends > keptUntil

  local isFamily = false
  if predecessor ~= '' then
    if digest == predecessor then redis.call('ZREM', used, digest) end
    followRefreshToken(session, predecessor, refreshToken, digest)
  elseif refreshToken ~= '' then
    isFamily = digest == kept[4] or digest == kept[5]
    -- An older token comes from a client that has missed newer ones.
    if not isFamily and (isNewer or (ends == keptUntil and not kept[4])) and not redis.call('ZSCORE', used, digest) then
      startRefreshTokens(session, refreshToken, digest)
      isFamily = true
    elseif isNewer and not isFamily then
      dropRefreshToken(session)
    end
  elseif connection ~= '' and isNewer then
    -- The client has refreshed by itself, possibly with the stored refresh token. A second use would be a reuse.
    if kept[4] then dropRefreshToken(session) end
  end
  -- Most sessions have no refresh token, neither before nor now.
  local refresh = {}
  if kept[4] or refreshToken ~= '' then
    refresh = redis.call('HMGET', session, 'refresh_family', 'refresh_token')
  end
  local family = isFamily and refresh[1] or ''

  if not isNewer then
    redis.call('PEXPIREAT', connections, keptUntil + grace)
    if keptUntil == ends then return { 'held', refreshes, family } end
    return { 'older', kept[1], keptUntil, refreshes, family, isFamily and refresh[2] or '' }
  end

  if kept[1] then refreshes = refreshes + 1 end
  redis.call('HSET', session, 'token', token, 'expires_at', ends, 'refreshes', refreshes,
    'failures', 0, 'state', 'refresh_scheduled')
  redis.call('PEXPIREAT', session, ends + grace)
  redis.call('PEXPIREAT', connections, ends + grace)
  redis.call('ZADD', due, presented.refreshAt, member)
  if kept[1] then
    redis.call('SPUBLISH', presented.channel, 'c' .. cjson.encode({
      control = 'token', session = presented.session, token = token, expires_at = ends, refreshes = refreshes,
      refresh_family = refresh[2] and refresh[1] or nil, refresh_token = refresh[2] or nil,
    }))
  end
  return { 'held', refreshes, family }
end
