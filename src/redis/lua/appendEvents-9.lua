--[[
  Appends events to a user's log, each with the next `seq`, and in the same step: checks that the writer still owns the
  run, writes usage records and refusals to the partition's outbox, settles a tool call's reservation, and publishes to the
  nodes that hold the user. Sent twice, it appends once: the run remembers how many of its events are in the log.

  KEYS[1] log          stream: one event an entry, id "<seq>-0", fields t(ype), s (timestamp), a (ms appended), f(ields)
  KEYS[2] logState     hash: epoch, seq
  KEYS[3] run          hash of the run; any key of the slot when ARGV[6] is ""
  KEYS[4] activeRuns   sorted set of runs that have not ended
  KEYS[5] outbox       stream of usage records (field r, with the trace they are of in t) and refusals (field x)
  KEYS[6] recentUsage  list of the user's usage records, newest first
  KEYS[7] thread       stream of the thread's messages; any key of the slot when ARGV[10] is ""
  KEYS[8] quota        hash of the user's uses, see include/quotas.lua
  KEYS[9] reservations sorted set of the user's calls under way
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
  ARGV[12] settlement of a tool call (JSON, see include/quotas.lua), "" for none
  ARGV[13] trace of the usage records, "" for none
  ARGV[14...] per event: type, timestamp, fields (a JSON object of at least one member), usage record or "",
              refusal or "", journal field or "", journal value
  Returns { "appended" | "repeated", last seq, epoch, cancellation asked for (0 | 1) } or { "fenced" } or { "finished" }
]]
--@include events
--@include quotas
local run, activeRuns, outbox, recentUsage = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local member, runEpoch, known, status = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]
local maxAge = tonumber(ARGV[3])
local STRIDE, FIRST = 7, 14
local count = (#ARGV - FIRST + 1) / STRIDE

local options = { channel = ARGV[1], length = ARGV[2], maxAge = ARGV[3], stateSeconds = ARGV[4] }
local log = openLog({ log = KEYS[1], logState = KEYS[2] }, options, redis.call('TIME'))

local cancel = 0
if runEpoch ~= '' then
  local owned = redis.call('HMGET', run, 'epoch', 'events', 'status', 'cancel')
  if owned[1] ~= runEpoch then return { 'fenced' } end
  local appended = tonumber(owned[2] or '0')
  if appended >= known + count then return { 'repeated', log.seq, log.epoch, tonumber(owned[4] or '0') } end
  if owned[3] == 'completed' or owned[3] == 'failed' or owned[3] == 'cancelled' then return { 'finished' } end
  if appended ~= known then return { 'fenced' } end
  cancel = tonumber(owned[4] or '0')
end

local settlement = ARGV[12] ~= '' and cjson.decode(ARGV[12])
if settlement then giveBack(KEYS[9], settlement.member) end
for i = FIRST, #ARGV, STRIDE do
  appendEvent(log, ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if ARGV[i + 3] ~= '' then writeRecord(outbox, recentUsage, ARGV[i + 3], ARGV[13], ARGV[9], 30 * maxAge) end
  if ARGV[i + 4] ~= '' then redis.call('XADD', outbox, '*', 'x', ARGV[i + 4]) end
  if ARGV[i + 5] ~= '' then redis.call('HSET', run, ARGV[i + 5], ARGV[i + 6]) end
end
closeLog(log)
if ARGV[10] ~= '' then redis.call('XADD', KEYS[7], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[11], '*', 'm', ARGV[10]) end

if runEpoch ~= '' then
  redis.call('HSET', run, 'events', known + count)
  if status ~= '' then
    redis.call('HSET', run, 'status', status, 'ended_at', log.now)
    redis.call('ZREM', activeRuns, member)
  end
end
if settlement then settle(KEYS[8], settlement, log.now) end
return { 'appended', log.seq, log.epoch, cancel }
