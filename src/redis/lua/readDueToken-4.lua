--[[
  Reads the token of a claimed session if a connection of the session still holds a lease. Otherwise it deletes the
  token and the session data.

  KEYS[1] due, KEYS[2] session, KEYS[3] connections: as in registerToken
  KEYS[4] leases  of the user's connections: connection id -> expiry of the lease, ms
  ARGV[1] member of `due`
  Returns { token (sealed), its expiry in ms, failures so far, digest of the refresh token that a worker may use or "" },
          or {} when there is nothing to refresh
]]
--@include time
local due, session, connections, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now = millis(redis.call('TIME'))
local live = 0
for _, id in ipairs(redis.call('SMEMBERS', connections)) do
  local lease = redis.call('ZSCORE', leases, id)
  if lease and tonumber(lease) > now then
    live = live + 1
  else
    redis.call('SREM', connections, id)
  end
end
local kept = redis.call('HMGET', session, 'token', 'expires_at', 'failures', 'refresh_digest', 'refresh_token')
if live == 0 or not kept[1] then
  redis.call('DEL', session, connections)
  redis.call('ZREM', due, ARGV[1])
  return {}
end
redis.call('HSET', session, 'state', 'refreshing')
return { kept[1], tonumber(kept[2]), tonumber(kept[3]), kept[5] and kept[4] or '' }
