--[[
  Finds a run of a user, by its id or as the latest run of a thread, and the position of its events in the event log.

  KEYS[1] run           hash of the run; any key in the slot when ARGV[1] is ""
  KEYS[2] runsInFlight  sorted set of the user's runs that have not ended, by deadline
  KEYS[3] runs          sorted set of the user's stored runs, by time of acceptance
  KEYS[4] logState      hash: epoch, seq
  KEYS[5] log           stream of events
  ARGV[1] run id, "" for the latest run of a thread
  ARGV[2] thread id
  ARGV[3] key prefix of the user's runs
  ARGV[4] maximum number of runs that are searched, newest first
  ARGV[5] seconds that an unused log keeps its log epoch
  Returns { "unknown" } or { run id, status, request id, thread id, agent, log epoch, last seq of the log, oldest seq in
          the log, seq of the run's first event or 0, seq of its terminal event or 0 }
]]
--@include time
local logState, log = KEYS[4], KEYS[5]

local function latestOfThread()
  for _, key in ipairs({ KEYS[2], KEYS[3] }) do
    for _, id in ipairs(redis.call('ZRANGE', key, 0, ARGV[4] - 1, 'REV')) do
      if redis.call('HGET', ARGV[3] .. id, 'thread_id') == ARGV[2] then return id end
    end
  end
end

local runId, run = ARGV[1], KEYS[1]
if runId == '' then
  runId = latestOfThread()
  if not runId then return { 'unknown' } end
  run = ARGV[3] .. runId
end
local fields =
  redis.call('HMGET', run, 'status', 'request_id', 'thread_id', 'agent', 'events', 'first_seq', 'last_seq')
if not fields[1] then return { 'unknown' } end

local state = redis.call('HMGET', logState, 'epoch', 'seq')
local epoch, seq = state[1], tonumber(state[2] or '0')
if not epoch then
  epoch = newEpoch(redis.call('TIME'))
  redis.call('HSET', logState, 'epoch', epoch, 'seq', seq)
  redis.call('EXPIRE', logState, ARGV[5])
end
local entry = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local oldest = entry and tonumber(string.match(entry[1], '^%d+')) or seq + 1
local first = tonumber(fields[6] or '0')
-- A node of an earlier version appended the first event: the run is somewhere in the log.
if first == 0 and tonumber(fields[5] or '0') > 0 then first = oldest end
return { runId, fields[1], fields[2], fields[3], fields[4] or '', epoch, seq, oldest, first, tonumber(fields[7] or '0') }
