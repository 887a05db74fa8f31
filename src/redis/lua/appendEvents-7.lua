--[[
  Appends events to a user's log, each with the next `seq`, and in the same step: checks that the writer still owns the
  run, writes usage records to the partition's outbox, and publishes to the nodes that hold the user.
  Sent twice, it appends once: the run remembers how many of its events are in the log.

  KEYS[1] log          stream: one event an entry, id "<seq>-0", fields t(ype), s (timestamp), a (ms appended), f(ields)
  KEYS[2] logState     hash: epoch, seq
  KEYS[3] run          hash of the run; any key of the slot when ARGV[7] is ""
  KEYS[4] activeRuns   sorted set of runs that have not ended
  KEYS[5] outbox       stream of usage records
  KEYS[6] recentUsage  list of the user's usage records, newest first
  KEYS[7] thread       stream of the thread's messages; any key of the slot when ARGV[11] is ""
  ARGV[1] the user's channel
  ARGV[2] epoch for a log that has none
  ARGV[3] greatest length of the log
  ARGV[4] greatest age of an event, ms
  ARGV[5] seconds that an unused log keeps its epoch
  ARGV[6] run id, "" outside a run
  ARGV[7] epoch of the run that the writer claimed, "" outside a run
  ARGV[8] how many events of the run the writer knows to be in the log before these
  ARGV[9] status of the run after these events, "" while it goes on
  ARGV[10] how many of the user's usage records to keep for the user's own tools
  ARGV[11] message to add to the thread (JSON), "" for none
  ARGV[12] how many messages a thread keeps
  ARGV[13...] per event: type, timestamp, fields (a JSON object of at least one member), usage record or "",
              journal field or "", journal value
  Returns { "appended" | "repeated", last seq, epoch, cancellation asked for (0 | 1) } or { "fenced" } or { "finished" }
]]
local log, logState, run, activeRuns, outbox, recentUsage = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local channel, runId, runEpoch, known, status = ARGV[1], ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9]
local maxAge = tonumber(ARGV[4])
local STRIDE, FIRST = 6, 13
local count = (#ARGV - FIRST + 1) / STRIDE

local state = redis.call('HMGET', logState, 'epoch', 'seq')
local epoch, seq = state[1] or ARGV[2], tonumber(state[2] or '0')

local cancel = 0
if runEpoch ~= '' then
  local owned = redis.call('HMGET', run, 'epoch', 'events', 'status', 'cancel')
  if owned[1] ~= runEpoch then return { 'fenced' } end
  local appended = tonumber(owned[2] or '0')
  if appended >= known + count then return { 'repeated', seq, epoch, tonumber(owned[4] or '0') } end
  if owned[3] == 'completed' or owned[3] == 'failed' or owned[3] == 'cancelled' then return { 'finished' } end
  if appended ~= known then return { 'fenced' } end
  cancel = tonumber(owned[4] or '0')
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = FIRST, #ARGV, STRIDE do
  local type, timestamp, fields, record, journal = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  seq = seq + 1
  fields = '{"seq":' .. seq .. ',' .. string.sub(fields, 2)
  redis.call('XADD', log, 'MAXLEN', '~', ARGV[3], seq .. '-0', 't', type, 's', timestamp, 'a', now, 'f', fields)
  if record ~= '' then
    redis.call('XADD', outbox, '*', 'r', record)
    redis.call('LPUSH', recentUsage, record)
    redis.call('LTRIM', recentUsage, 0, ARGV[10] - 1)
    redis.call('PEXPIRE', recentUsage, 30 * maxAge)
  end
  if journal ~= '' then redis.call('HSET', run, journal, ARGV[i + 5]) end
  redis.call('SPUBLISH', channel, 'e' .. epoch .. ' ' .. seq .. ' ' .. type .. ' ' .. timestamp .. ' ' .. fields)
end
redis.call('HSET', logState, 'epoch', epoch, 'seq', seq)
redis.call('EXPIRE', logState, ARGV[5])
redis.call('PEXPIRE', log, maxAge)
if ARGV[11] ~= '' then redis.call('XADD', KEYS[7], 'MAXLEN', '~', ARGV[12], '*', 'm', ARGV[11]) end

if runEpoch ~= '' then
  redis.call('HSET', run, 'events', known + count)
  if status ~= '' then
    redis.call('HSET', run, 'status', status, 'ended_at', now)
    redis.call('ZREM', activeRuns, runId)
  end
end

-- Old events go a few at a time, on every sixteenth append: never a long pause, and no sweep over all users.
if seq % 16 < count then
  for _ = 1, 32 do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if not oldest or now - tonumber(oldest[2][6]) <= maxAge then break end
    redis.call('XDEL', log, oldest[1])
  end
end
return { 'appended', seq, epoch, cancel }
