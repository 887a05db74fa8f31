--[[
  Stores the latest token of a session for as long as the session has a live connection, and schedules its refresh. A
  token that expires later than the stored one is published to the session's other connections, so that all of them live
  as long as the latest token.

  KEYS[1] due          sorted set of the partition: "<user id> <session>" -> when to refresh, ms
  KEYS[2] session      hash: token (sealed), expires_at, refreshes, failures, state
  KEYS[3] connections  set: ids of the session's connections
  ARGV[1] member of `due`
  ARGV[2] id of the connection that presented the token, or "" for the worker that refreshed it
  ARGV[3] token, sealed
  ARGV[4] expiry of the token, ms
  ARGV[5] time of its refresh, ms
  ARGV[6] ms after the expiry during which it can still be exchanged
  ARGV[7] the user's channel
  ARGV[8] session
  Returns { "gone" } when the session has no connection any more, else
          { "held", refreshes } or { "older", stored token (sealed), its expiry in ms, refreshes }
]]
local due, session, connections = KEYS[1], KEYS[2], KEYS[3]
local member, connection, token, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[7]
local ends, refreshAt, grace = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])

if connection ~= '' then
  redis.call('SADD', connections, connection)
elseif redis.call('EXISTS', connections) == 0 then
  redis.call('DEL', session)
  redis.call('ZREM', due, member)
  return { 'gone' }
end

local kept = redis.call('HMGET', session, 'token', 'expires_at', 'refreshes')
local keptUntil = tonumber(kept[2] or '0')
local refreshes = tonumber(kept[3] or '0')
if keptUntil >= ends then
  redis.call('PEXPIREAT', connections, keptUntil + grace)
  if keptUntil == ends then return { 'held', refreshes } end
  return { 'older', kept[1], keptUntil, refreshes }
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
  }))
end
return { 'held', refreshes }
