--[[
  Restores a run after Redis lost acknowledged writes (a failover to a lagging replica, a restart from an older file or
  without one), for the worker that executes it or the gateway that accepted it. A run that Redis still has is not
  changed, except that a worker claims it again.

  A run that is missing within `kept` ms of its acceptance was lost, because its expiry would remove it later. A claim
  that is later than the one before this worker's, and not its own, belongs to a worker that took the run over.

  A worker restores its claim with the same fencing token. So the latest of several workers that restore one run owns it,
  in whatever order they come: a run that waited for input has been claimed at least twice.

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
  ARGV[7] fencing token of this worker; "" for a gateway, which claims nothing
  ARGV[8] fencing token of the claim before that of this worker
  ARGV[9] number of events of earlier workers
  ARGV[10...] field, value, field, value, ... of the run, with the journal of earlier workers
  Returns { "stored" } (to a gateway), { "claimed", events of the run in the log }, { "fenced" } or { "finished" }
]]
--@include time
--@include waiting
local run, activeRuns, runsInFlight = KEYS[1], KEYS[3], KEYS[5]
local kept, own, earlier = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[9])
local stored = redis.call('HMGET', run, 'status', 'epoch', 'events')
local status = stored[1]
if status == 'completed' or status == 'failed' or status == 'cancelled' then return { 'finished' } end
local events = tonumber(stored[3] or '0')
if status then
  if own == '' then return { 'stored' } end
  if stored[2] ~= own and tonumber(stored[2]) > tonumber(ARGV[8]) then return { 'fenced' } end
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
if own == '' then
  if not status then redis.call('HSET', run, unpack(ARGV, 10)) end
  return { 'stored' }
end
if events < earlier then
  events = earlier
  redis.call('HSET', run, 'events', events)
end
if stored[2] ~= own then
  redis.call('HSET', run, 'epoch', own, unpack(ARGV, 10))
  -- The claim was lost, and with it the end of the wait before it.
  endWait(run, { activeRuns = activeRuns, runsInFlight = runsInFlight }, ARGV[3], millis(redis.call('TIME')))
  redis.call('HSET', run, 'status', 'running')
end
return { 'claimed', events }
