--[[
  Stores the latest token of a session for as long as the session has a live connection, and schedules its refresh. A
  token that expires later than the stored one is published to the session's other connections, so that all of them live
  as long as the latest token.

  The refresh token of a session has digests in place of a name. All refresh tokens that follow each other form a family,
  named after its first one. A connection belongs to the family if it handed over the current token or its predecessor:
  only such a connection may receive a refresh token, so that an access token alone never obtains one.

  KEYS[1] due          sorted set of the partition: "<user id> <session>" -> when to refresh, ms
  KEYS[2] session      hash: token (sealed), expires_at, refreshes, failures, state; with a refresh token refresh_digest,
                       refresh_previous, refresh_family, and refresh_token (sealed) unless a worker is using it
  KEYS[3] connections  set: ids of the session's connections
  KEYS[4] used         sorted set of the user: digests of refresh tokens that were sent to the provider -> when, ms
  ARGV[1] member of `due`
  ARGV[2] id of the connection that presented the token, or "" for the worker that refreshed it
  ARGV[3] token, sealed
  ARGV[4] expiry of the token, ms
  ARGV[5] time of its refresh, ms
  ARGV[6] ms after the expiry during which it can still be exchanged
  ARGV[7] the user's channel
  ARGV[8] session
  ARGV[9] refresh token, sealed; "" without one
  ARGV[10] its digest
  ARGV[11] digest of its predecessor, for the worker that used that one; else ""
  Returns { "gone" } when the session has no connection any more, else
          { "held", refreshes, family of the connection or "" } or
          { "older", stored token (sealed), its expiry in ms, refreshes, family or "", refresh token (sealed) or "" }
]]
--@include refreshing
local due, session, connections, used = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, connection, token, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[7]
local ends, refreshAt, grace = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local refreshToken, digest, predecessor = ARGV[9], ARGV[10], ARGV[11]

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
  dropRefreshToken(session)
end
local refresh = redis.call('HMGET', session, 'refresh_family', 'refresh_token')
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
redis.call('ZADD', due, refreshAt, member)
if kept[1] then
  redis.call('SPUBLISH', channel, 'c' .. cjson.encode({
    control = 'token', session = ARGV[8], token = token, expires_at = ends, refreshes = refreshes,
    refresh_family = refresh[2] and refresh[1] or nil, refresh_token = refresh[2] or nil,
  }))
end
return { 'held', refreshes, family }
