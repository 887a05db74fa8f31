--[[
  Admits a connection of a user. The same step prunes expired leases, enforces the connection cap, registers the token of
  the connection and reads the head of the event log.

  KEYS[1] leases       sorted set: connection id -> expiry of its lease, ms
  KEYS[2] connections  hash: connection id -> "<admission order> <details>"; "#" -> the last order assigned
  KEYS[3] evicted      sorted set: connection id -> when the entry may be removed, ms
  KEYS[4] logState     hash: epoch, seq
  KEYS[5] account      hash: plan, blocked, revoked_before (ms), erasure (while one is in progress)
  KEYS[6] due, KEYS[7] session, KEYS[8] token connections, KEYS[9] used: as KEYS[1] to KEYS[4] of registerToken
  ARGV[1] connection id
  ARGV[2] details (JSON)
  ARGV[3] admission order of a connection that is readmitted, or "" for the next order
  ARGV[4] duration of a lease, ms
  ARGV[5] the user's channel
  ARGV[6] seconds that an unused log keeps its log epoch
  ARGV[7] plan of the token
  ARGV[8] when the token was issued, ms
  ARGV[9] prefix of the channel to which a live node stays subscribed; the node id follows
  ARGV[10] stream that the connection carries, "" for none; it replaces an earlier connection with the same stream
  ARGV[11] token, sealed, or "" for one that is not refreshed; then ARGV[12...18] are not used
  ARGV[12] member of `due`, ARGV[13] expiry of the token, ARGV[14] time of its refresh, ARGV[15] ms after the expiry during
           which it can be exchanged, ARGV[16] session, ARGV[17] refresh token, ARGV[18] its digest: as in registerToken
  ARGV[19...] plan, cap, plan, cap, ...; the first cap also serves a plan that is not listed
  Returns { "blocked" }, { "revoked" } or { "admitted", admission order, stored plan or "", epoch, seq, revoked_before,
          reply of registerToken }; that reply is {} for a token that is not refreshed
]]
--@include time
--@include caps
--@include refreshing
--@include tokens
local leases, connections, evicted, logState, account = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, details, order, lease, channel = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local stored = redis.call('HMGET', account, 'plan', 'blocked', 'revoked_before', 'erasure')
if stored[2] == '1' or stored[4] then return { 'blocked' } end
local revokedBefore = tonumber(stored[3] or '0')
if tonumber(ARGV[8]) < revokedBefore then return { 'revoked' } end
local keys = { leases = leases, connections = connections, evicted = evicted }

local time = redis.call('TIME')
local now = millis(time)
prune(keys, now)

local last = tonumber(redis.call('HGET', connections, '#') or '0')
-- Never below the current time: the last order is removed with the user's other connections, which may still be
-- readmitted.
order = tonumber(order) or math.max(last + 1, now)
redis.call('ZADD', leases, now + lease, id)
redis.call('ZREM', evicted, id)
redis.call('HSET', connections, id, order .. ' ' .. details, '#', math.max(last, order))

if ARGV[10] ~= '' then
  replaceStream(keys, { stream = ARGV[10], newcomer = id, now = now, lease = lease, channel = channel })
end
evict(keys, {
  cap = capOf(stored[1] or ARGV[7], ARGV, 19), now = now, lease = lease, channel = channel, nodeChannel = ARGV[9], newcomer = id,
})
redis.call('PEXPIRE', leases, 2 * lease)
redis.call('PEXPIRE', connections, 2 * lease)

local log = redis.call('HMGET', logState, 'epoch', 'seq')
if not log[1] then
  log = { newEpoch(time), '0' }
  redis.call('HSET', logState, 'epoch', log[1], 'seq', log[2])
end
redis.call('EXPIRE', logState, ARGV[6])

local registered = {}
if ARGV[11] ~= '' then
  registered = registerToken({ due = KEYS[6], session = KEYS[7], connections = KEYS[8], used = KEYS[9] }, {
    member = ARGV[12], connection = id, token = ARGV[11], ends = ARGV[13], refreshAt = ARGV[14], grace = ARGV[15],
    channel = channel, session = ARGV[16], refreshToken = ARGV[17], digest = ARGV[18], predecessor = '',
  })
end
return { 'admitted', order, stored[1] or '', log[1], tonumber(log[2]), revokedBefore, registered }
