--[[
  Appends events to a user's log, each with the next `seq`. The same step
  - checks that the writer still owns the run,
  - writes usage records and refusals to the outbox of the partition,
  - commits or releases the reservation of a tool call, or reserves quota for one,
  - publishes the events to the nodes that serve the user.
  Sent twice, it appends once: the run stores how many of its events are in the log.

  KEYS[1] log          stream: one event per entry, id "<seq>-0", fields t(ype), s (timestamp),
                       a (ms appended), f(ields)
  KEYS[2] logState     hash: epoch, seq
  KEYS[3] run          hash of the run; any key in the slot when ARGV[9] is ""
  KEYS[4] activeRuns   sorted set of runs that have not ended
  KEYS[5] outbox       stream of usage records (field r, with their trace in t) and refusals (field x)
  KEYS[6] recentUsage  list of the user's usage records, newest first
  KEYS[7] thread       stream of the thread's messages; any key in the slot when ARGV[12] is ""
  KEYS[8] quota        hash of the user's counted uses, see include/quotas.lua
  KEYS[9] reservations sorted set of the user's reservations, one per call in flight
  KEYS[10] runsInFlight sorted set of the user's runs that have not ended
  ARGV[1...7] the log, see include/events.lua
  ARGV[8] member of activeRuns ("<user id> <run id>"), "" outside a run
  ARGV[9] fencing token of the claim (field `epoch` of the run), "" outside a run
  ARGV[10] number of events of the run that the writer knows to be in the log before these
  ARGV[11] status of the run after these events, "" while it continues
  ARGV[12] message to add to the thread if it still exists (JSON), "" for none
  ARGV[13] maximum number of messages per thread
  ARGV[14] maximum number of bytes per thread
  ARGV[15] commit of a tool call (JSON, see include/quotas.lua), "" for none
  ARGV[16] reservation of a tool call that begins with these events (JSON, see `reserve` in include/quotas.lua), "" for none
  ARGV[17] 1 when the run may have a journal of earlier appends
  ARGV[18...] per event: type, timestamp, fields (a JSON object with at least one member), usage record or "",
              refusal or "", journal field or "", journal value
  Returns { "appended" | "repeated", last seq, epoch, cancel requested (0 | 1) }, with a reservation followed by
          "reserved", now, status... or "refused", now, index of the limit or 0, status...;
          or { "fenced" } or { "finished" } or
          { "behind" } when Redis lost the run, a claim or events that it had acknowledged to the writer
]]
--@include time
--@include streams
--@include events
--@include threads
--@include quotas
local run, activeRuns, outbox, recentUsage = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local member, runEpoch, known, status = ARGV[8], ARGV[9], tonumber(ARGV[10]), ARGV[11]
local STRIDE, FIRST = 7, 18
local count = (#ARGV - FIRST + 1) / STRIDE

-- The request, its caller and the journal are needed only while the run is executed. An ended run is kept for a day, so
-- these fields are removed. The message remains in its thread.
local JOURNAL = { ['tool:'] = true, ['step:'] = true, ['input:'] = true, ['answer:'] = true }
local function endRun()
  redis.call('ZREM', activeRuns, member)
  redis.call('ZREM', KEYS[10], string.match(member, '%S+$'))
  local unneeded = { 'message', 'caller', 'job' }
  for _, field in ipairs(ARGV[17] == '1' and redis.call('HKEYS', run) or {}) do
    if JOURNAL[string.match(field, '^%a+:') or ''] then unneeded[#unneeded + 1] = field end
  end
  -- Lua limits the number of arguments of a call.
  for i = 1, #unneeded, 1000 do redis.call('HDEL', run, unpack(unneeded, i, math.min(i + 999, #unneeded))) end
end

-- Completes the reply of an append. An existing reservation of the call is extended, so a repetition reserves once.
local function replied(result, now)
  if ARGV[16] == '' then return result end
  local allowed, second, third = reserve(KEYS[8], KEYS[9], cjson.decode(ARGV[16]), now)
  result[5], result[6] = allowed and 'reserved' or 'refused', now
  if not allowed then result[7] = second end
  for _, number in ipairs(allowed and second or third) do result[#result + 1] = number end
  return result
end

local log = openLog({ log = KEYS[1], logState = KEYS[2] }, redis.call('TIME'))

local cancel = 0
if runEpoch ~= '' then
  local owned = redis.call('HMGET', run, 'epoch', 'events', 'status', 'cancel')
  if not owned[1] or tonumber(owned[1]) < tonumber(runEpoch) then return { 'behind' } end
  if owned[1] ~= runEpoch then return { 'fenced' } end
  local appended = tonumber(owned[2] or '0')
  if appended >= known + count then
    return replied({ 'repeated', log.seq, log.epoch, tonumber(owned[4] or '0') }, log.now)
  end
  if owned[3] == 'completed' or owned[3] == 'failed' or owned[3] == 'cancelled' then return { 'finished' } end
  if appended < known then return { 'behind' } end
  if appended ~= known then return { 'fenced' } end
  cancel = tonumber(owned[4] or '0')
end

local settlement = ARGV[15] ~= '' and cjson.decode(ARGV[15])
if settlement then releaseReservation(KEYS[9], settlement.member) end
for i = FIRST, #ARGV, STRIDE do
  appendEvent(log, ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if ARGV[i + 3] ~= '' then writeRecord(log, outbox, recentUsage, ARGV[i + 3]) end
  if ARGV[i + 4] ~= '' then redis.call('XADD', outbox, '*', 'x', ARGV[i + 4]) end
  -- No worker takes a run over that ends in this step.
  if ARGV[i + 5] ~= '' and status == '' then redis.call('HSET', run, ARGV[i + 5], ARGV[i + 6]) end
end
closeLog(log)
if ARGV[12] ~= '' then
  addMessage(KEYS[7], ARGV[12], { messages = ARGV[13], bytes = ARGV[14], existing = true })
end

if runEpoch ~= '' then
  local fields = { 'events', string.format('%d', known + count) }
  local function set(...)
    for _, value in ipairs({ ... }) do fields[#fields + 1] = value end
  end
  -- Where the events of the run begin and end in the log, for readers of this run only.
  if known == 0 then set('first_seq', string.format('%d', log.seq - count + 1)) end
  if status ~= '' then set('status', status, 'ended_at', log.nowText, 'last_seq', string.format('%d', log.seq)) end
  redis.call('HSET', run, unpack(fields))
  if status ~= '' then endRun() end
end
if settlement then commitUse(KEYS[8], settlement, log.now) end
return replied({ 'appended', log.seq, log.epoch, cancel }, log.now)
