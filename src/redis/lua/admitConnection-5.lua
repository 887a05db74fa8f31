--[[
  Admits a connection of a user, in one step with pruning, the cap and the head of the event log.
  A connection past the cap closes the one admitted first: its lease goes here, and the user's channel tells the node
  that holds it. A node that misses the message finds the connection under `evicted` at its next renewal.
  Connections of a node that Redis has lost go before any other: their clients have gone with it or are about to come
  back, and until their leases end each of them would cost a live connection its place.

  KEYS[1] leases       sorted set: connection id -> end of its lease, ms
  KEYS[2] connections  hash: connection id -> "<place in the order of admission> <details>"; "#" -> the last place given
  KEYS[3] evicted      sorted set: connection id -> when it may be forgotten, ms
  KEYS[4] logState     hash: epoch, seq
  KEYS[5] account      hash: plan, blocked, revoked_before (ms)
  ARGV[1] connection id
  ARGV[2] details (JSON)
  ARGV[3] place in the order of admission to take again, or "" for the next
  ARGV[4] lease, ms
  ARGV[5] the user's channel
  ARGV[6] seconds that an unused log keeps its epoch
  ARGV[7] plan of the token
  ARGV[8] when the token was issued, ms
  ARGV[9] what the name of a channel begins with that a node listens to as long as it lives; its id follows
  ARGV[10...] plan, cap, plan, cap, ...; the first cap also serves a plan that is not listed
  Returns { "blocked" }, { "revoked" } or { "admitted", place, plan, epoch, seq, revoked_before }
]]
local leases, connections, evicted, logState, account = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, details, place, lease, channel = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local stored = redis.call('HMGET', account, 'plan', 'blocked', 'revoked_before')
if stored[2] == '1' then return { 'blocked' } end
local revokedBefore = tonumber(stored[3] or '0')
if tonumber(ARGV[8]) < revokedBefore then return { 'revoked' } end
local plan = stored[1] or ARGV[7]
local cap = tonumber(ARGV[11])
for i = 10, #ARGV, 2 do
  if ARGV[i] == plan then cap = tonumber(ARGV[i + 1]) end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local dead = redis.call('ZRANGE', leases, '-inf', now, 'BYSCORE')
if #dead > 0 then
  redis.call('ZREM', leases, unpack(dead))
  redis.call('HDEL', connections, unpack(dead))
end
redis.call('ZREMRANGEBYSCORE', evicted, '-inf', now)

local last = tonumber(redis.call('HGET', connections, '#') or '0')
-- Never below the time: the last place given is forgotten with the user's other connections, who may yet come back.
place = tonumber(place) or math.max(last + 1, now)
redis.call('ZADD', leases, now + lease, id)
redis.call('ZREM', evicted, id)
redis.call('HSET', connections, id, place .. ' ' .. details, '#', math.max(last, place))

local excess = redis.call('ZCARD', leases) - cap
if excess > 0 then
  local listening = {}
  local function lives(node)
    if listening[node] == nil then
      listening[node] = redis.call('PUBSUB', 'SHARDNUMSUB', ARGV[9] .. node)[2] > 0
    end
    return listening[node]
  end
  local places = {}
  local all = redis.call('HGETALL', connections)
  for i = 1, #all, 2 do
    if all[i] ~= '#' then
      local given, about = string.match(all[i + 1], '^(%d+) (.*)$')
      local alive = all[i] == id or lives(cjson.decode(about).node)
      places[#places + 1] = { tonumber(given), all[i], alive }
    end
  end
  table.sort(places, function(a, b)
    if a[3] ~= b[3] then return b[3] end
    return a[1] < b[1]
  end)
  local ids = {}
  for i = 1, excess do
    ids[i] = places[i][2]
    redis.call('ZADD', evicted, now + 2 * lease, ids[i])
  end
  redis.call('ZREM', leases, unpack(ids))
  redis.call('HDEL', connections, unpack(ids))
  redis.call('PEXPIRE', evicted, 2 * lease)
  redis.call('SPUBLISH', channel, 'c' .. cjson.encode({ control = 'evict', connection_ids = ids }))
end
redis.call('PEXPIRE', leases, 2 * lease)
redis.call('PEXPIRE', connections, 2 * lease)

local log = redis.call('HMGET', logState, 'epoch', 'seq')
if not log[1] then
  -- Names a history of the log: one that begins after a loss begins at another time.
  log = { string.format('epoch_%x%05x', time[1], time[2]), '0' }
  redis.call('HSET', logState, 'epoch', log[1], 'seq', log[2])
end
redis.call('EXPIRE', logState, ARGV[6])
return { 'admitted', place, plan, log[1], tonumber(log[2]), revokedBefore }
