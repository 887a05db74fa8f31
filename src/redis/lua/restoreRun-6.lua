--[[
  Restores a run after Redis lost acknowledged writes (a failover to a lagging replica, a restart from an older file or
  without one), for the worker that executes it or the gateway that accepted it. A run that Redis still has is not
  changed, except that a worker claims it again.

  A run that is missing within `kept` ms of its acceptance was lost, because its expiry would remove it later. A claim
  that is later than the one before this worker's, and not its own, belongs to a worker that took the run over.

  KEYS[1] run          hash of the run
  KEYS[2] request      string: "<run id> <thread id>" that its request id started
  KEYS[3] activeRuns   sorted set: "<user id> <run id>" -> when it must have ended, ms
  KEYS[4] runs         sorted set of the user's stored runs, by time of acceptance
  KEYS[5] runsInFlight sorted set of the user's runs that have not ended
  KEYS[6] account      hash; `erasure` while the user's data is being erased
  ARGV[1] run id
  ARGV[2] thread id
  ARGV[3] member of activeRuns
  ARGV[4] ms since the run was accepted
  ARGV[5] ms from the acceptance until the run must have ended
  ARGV[6] kept: ms that the run and its request id are stored
  ARGV[7] fencing tokens of this worker, the latest first, separated by spaces; "" for a gateway, which claims nothing
  ARGV[8] fencing token of the claim before that of this worker
  ARGV[9] amount to add to the fencing token
  ARGV[10] number of events of earlier workers
  ARGV[11...] field, value, field, value, ... of the run, with the journal of earlier workers
  Returns { "stored" } (to a gateway), { "claimed", fencing token, events of the run in the log }, { "fenced" } or
          { "finished" }
]]
--@include time
local run, activeRuns, runsInFlight = KEYS[1], KEYS[3], KEYS[5]
local kept, own, earlier = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[10])
local stored = redis.call('HMGET', run, 'status', 'epoch', 'events')
local status = stored[1]
if status == 'completed' or status == 'failed' or status == 'cancelled' then return { 'finished' } end
local events = tonumber(stored[3] or '0')
local isOwn
if status then
  if own == '' then return { 'stored' } end
  isOwn = string.find(' ' .. own .. ' ', ' ' .. stored[2] .. ' ', 1, true)
  if not isOwn and tonumber(stored[2]) > tonumber(ARGV[8]) then return { 'fenced' } end
else
  if tonumber(ARGV[4]) > kept / 2 or redis.call('HEXISTS', KEYS[6], 'erasure') == 1 then return { 'fenced' } end
  local now = millis(redis.call('TIME'))
  local acceptedAt = now - ARGV[4]
  redis.call('HSET', run, 'status', 'queued', 'epoch', 0, 'events', 0, 'accepted_at', acceptedAt, 'thread_id', ARGV[2])
  redis.call('PEXPIRE', run, kept)
  redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2], 'PX', kept, 'NX')
  redis.call('ZADD', KEYS[4], acceptedAt, ARGV[1])
  redis.call('PEXPIRE', KEYS[4], kept)
  redis.call('ZADD', activeRuns, acceptedAt + ARGV[5], ARGV[3])
  redis.call('ZADD', runsInFlight, acceptedAt + ARGV[5], ARGV[1])
  redis.call('PEXPIRE', runsInFlight, kept)
end
if not status or events < earlier then redis.call('HSET', run, unpack(ARGV, 11)) end
if own == '' then return { 'stored' } end
if events < earlier then
  events = earlier
  redis.call('HSET', run, 'events', events)
end
-- After its wait a run is queued with the claim of the worker that suspended it, until another one claims it.
if not (isOwn and status == 'queued') then
  redis.call('HSET', run, 'status', redis.call('HEXISTS', run, 'waiting_since') == 1 and 'waiting' or 'running')
end
local latest = string.match(own, '^%d+')
if stored[2] == latest then return { 'claimed', tonumber(latest), events } end
return { 'claimed', redis.call('HINCRBY', run, 'epoch', ARGV[9]), events }
