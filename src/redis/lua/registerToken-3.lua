--[[
  Keeps the latest token of a login session for as long as a connection of that session lives, and schedules its
  refresh. A token that ends later than the one before it is told to the session's other connections, so that all of
  them live as long as the latest.

  KEYS[1] due          sorted set of the partition: "<user id> <session>" -> when to refresh, ms
  KEYS[2] session      hash: token (sealed), expires_at, refreshes, failures, state
  KEYS[3] connections  set: ids of the session's connections
  ARGV[1] member of `due`
  ARGV[2] the connection that brought the token, or "" for the worker that refreshed it
  ARGV[3] token, sealed
  ARGV[4] its end, ms
  ARGV[5] when to refresh it, ms
  ARGV[6] how long after its end it may still be exchanged, ms
  ARGV[7] the user's channel
  ARGV[8] session
  Returns { "gone" } when the session has no connection any more, else
          { "held", refreshes } or { "older", the token kept (sealed), its end in ms, refreshes }
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
