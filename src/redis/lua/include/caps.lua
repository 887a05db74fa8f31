--[[
  The leases of one user's connections, for scripts that enforce the connection cap.
  keys: { leases, connections, evicted }, as in admitConnection.
]]

-- Returns the cap of a plan from plan, cap, plan, cap, ..., starting at index `first`. A plan that is not listed gets
-- the first cap.
local function capOf(plan, arguments, first)
  local cap = tonumber(arguments[first + 1])
  for i = first, #arguments, 2 do
    if arguments[i] == plan then cap = tonumber(arguments[i + 1]) end
  end
  return cap
end

-- Removes the connections whose lease has expired.
local function prune(keys, now)
  local dead = redis.call('ZRANGE', keys.leases, '-inf', now, 'BYSCORE')
  if #dead > 0 then
    redis.call('ZREM', keys.leases, unpack(dead))
    redis.call('HDEL', keys.connections, unpack(dead))
  end
  redis.call('ZREMRANGEBYSCORE', keys.evicted, '-inf', now)
end

-- Evictions stored for nodes that missed the message: twice the largest cap. A renewal of an older eviction returns
-- "missing".
local EVICTED_KEPT = 2000

-- Removes connections and notifies the nodes that own them. Returns their number.
local function expel(keys, ids, options)
  for _, id in ipairs(ids) do redis.call('ZADD', keys.evicted, options.now + 2 * options.lease, id) end
  redis.call('ZREM', keys.leases, unpack(ids))
  redis.call('HDEL', keys.connections, unpack(ids))
  redis.call('ZREMRANGEBYRANK', keys.evicted, 0, -1 - EVICTED_KEPT)
  redis.call('PEXPIRE', keys.evicted, 2 * options.lease)
  redis.call('SPUBLISH', options.channel, 'c' .. cjson.encode({ control = 'evict', connection_ids = ids }))
  return #ids
end

--[[
  Evicts the connections above the cap, oldest first, and notifies the nodes that own them. A node that misses the
  message finds its connection under `evicted` at the next renewal.
  Evicts connections of disconnected nodes first, and connections without details. Redis dropped the node's channel
  subscription, so its clients are gone or about to reconnect; until their leases expire, each would otherwise displace
  a live connection.
  options: { cap, now, lease, channel, nodeChannel, newcomer }; `newcomer` always counts as live, whatever the state of
  its node.
  Returns the number of evicted connections.
]]
local function evict(keys, options)
  local excess = redis.call('ZCARD', keys.leases) - options.cap
  if excess <= 0 then return 0 end
  local listening = {}
  local function lives(node)
    if listening[node] == nil then
      listening[node] = redis.call('PUBSUB', 'SHARDNUMSUB', options.nodeChannel .. node)[2] > 0
    end
    return listening[node]
  end
  local candidates = {}
  local leased = redis.call('ZRANGE', keys.leases, 0, -1)
  local stored = redis.call('HMGET', keys.connections, unpack(leased))
  for i, id in ipairs(leased) do
    local order, details = string.match(stored[i] or '', '^(%d+) (.*)$')
    local alive = id == options.newcomer or (details ~= nil and lives(cjson.decode(details).node))
    candidates[i] = { tonumber(order or '0'), id, alive }
  end
  table.sort(candidates, function(a, b)
    if a[3] ~= b[3] then return b[3] end
    return a[1] < b[1]
  end)
  local ids = {}
  for i = 1, excess do ids[i] = candidates[i][2] end
  return expel(keys, ids, options)
end

--[[
  Evicts earlier connections with the same stream: their client has come back, and a proxy or a silent network may not
  have reported the end of the old connection yet.
  options: { stream, newcomer, now, lease, channel }
]]
local function replaceStream(keys, options)
  local ids = {}
  local stored = redis.call('HGETALL', keys.connections)
  for i = 1, #stored, 2 do
    local details = string.match(stored[i + 1], '^%d+ (.*)$')
    local same = details and stored[i] ~= options.newcomer and cjson.decode(details).stream == options.stream
    if same then ids[#ids + 1] = stored[i] end
  end
  if #ids > 0 then expel(keys, ids, options) end
end
