--[[
  Appends events to a user's log, each with the next `seq`, and in the same step: checks that the writer still owns the
  run, writes usage records and refusals to the partition's outbox, and publishes to the nodes that hold the user.
  Sent twice, it appends once: the run remembers how many of its events are in the log.

  KEYS[1] log          stream: one event an entry, id "<seq>-0", fields t(ype), s (timestamp), a (ms appended), f(ields)
  KEYS[2] logState     hash: epoch, seq
  KEYS[3] run          hash of the run; any key of the slot when ARGV[6] is ""
  KEYS[4] activeRuns   sorted set of runs that have not ended
  KEYS[5] outbox       stream of usage records (field r) and refusals (field x)
  KEYS[6] recentUsage  list of the user's usage records, newest first
  KEYS[7] thread       stream of the thread's messages; any key of the slot when ARGV[10] is ""
  ARGV[1] the user's channel
  ARGV[2] greatest length of the log
  ARGV[3] greatest age of an event, ms
  ARGV[4] seconds that an unused log keeps its epoch
  ARGV[5] member of activeRuns, "" outside a run
  ARGV[6] epoch of the run that the writer claimed, "" outside a run
  ARGV[7] how many events of the run the writer knows to be in the log before these
  ARGV[8] status of the run after these events, "" while it goes on
  ARGV[9] how many of the user's usage records to keep for the user's own tools
  ARGV[10] message to add to the thread if it is still there (JSON), "" for none
  ARGV[11] how many messages a thread keeps
  ARGV[12...] per event: type, timestamp, fields (a JSON object of at least one member), usage record or "",
              refusal or "", journal field or "", journal value
  Returns { "appended" | "repeated", last seq, epoch, cancellation asked for (0 | 1) } or { "fenced" } or { "finished" }
]]
local log, logState, run, activeRuns, outbox, recentUsage = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local channel, member, runEpoch, known, status = ARGV[1], ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]
local maxAge = tonumber(ARGV[3])
local STRIDE, FIRST = 7, 12
local count = (#ARGV - FIRST + 1) / STRIDE

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', logState, 'epoch', 'seq')
-- Names a history of the log: one that begins after a loss begins at another time.
local epoch, seq = state[1] or string.format('epoch_%x%05x', time[1], time[2]), tonumber(state[2] or '0')

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

for i = FIRST, #ARGV, STRIDE do
  local type, timestamp, fields, record = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local refusal, journal = ARGV[i + 4], ARGV[i + 5]
  seq = seq + 1
  fields = '{"seq":' .. seq .. ',' .. string.sub(fields, 2)
  redis.call('XADD', log, 'MAXLEN', '~', ARGV[2], seq .. '-0', 't', type, 's', timestamp, 'a', now, 'f', fields)
  if record ~= '' then
    redis.call('XADD', outbox, '*', 'r', record)
    redis.call('LPUSH', recentUsage, record)
    redis.call('LTRIM', recentUsage, 0, ARGV[9] - 1)
    redis.call('PEXPIRE', recentUsage, 30 * maxAge)
  end
  if refusal ~= '' then redis.call('XADD', outbox, '*', 'x', refusal) end
  if journal ~= '' then redis.call('HSET', run, journal, ARGV[i + 6]) end
  redis.call('SPUBLISH', channel, 'e' .. epoch .. ' ' .. seq .. ' ' .. type .. ' ' .. timestamp .. ' ' .. fields)
end
redis.call('HSET', logState, 'epoch', epoch, 'seq', seq)
redis.call('EXPIRE', logState, ARGV[4])
redis.call('PEXPIRE', log, maxAge)
if ARGV[10] ~= '' then redis.call('XADD', KEYS[7], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[11], '*', 'm', ARGV[10]) end

if runEpoch ~= '' then
  redis.call('HSET', run, 'events', known + count)
  if status ~= '' then
    redis.call('HSET', run, 'status', status, 'ended_at', now)
    redis.call('ZREM', activeRuns, member)
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
