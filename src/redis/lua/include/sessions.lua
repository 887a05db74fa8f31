-- Removes a connection from the session of its token. With the last connection it also deletes the token and ends the
-- refreshes. keys: { due, session, connections }, as in registerToken. Returns the number of remaining connections.
local function leaveSession(keys, left)
  redis.call('SREM', keys.connections, left.connection)
  local remaining = redis.call('SCARD', keys.connections)
  if remaining == 0 then
    redis.call('DEL', keys.session)
    redis.call('ZREM', keys.due, left.member)
  end
  return remaining
end
