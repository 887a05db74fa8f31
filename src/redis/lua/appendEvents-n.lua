--[[
  Appends events to a user's log, each with the next `seq`. The same step
  - checks that the writer still owns the run,
  - writes usage records and refusals to the outbox of the partition,
  - commits or releases the reservation of a tool call, or reserves quota for one,
  - publishes the events to the nodes that serve the user.
  Sent twice, it appends once: the run stores how many of its events are in the log.

  Redis and Lua spend more time on an argument than on most commands. An append therefore has only the keys, from the
  first, and the options that it needs.

  KEYS[1] log          stream: one event per entry, id "<seq>-0", fields t(ype), s (timestamp),
                       a (ms appended), f(ields)
  KEYS[2] logState     hash: epoch, seq
  KEYS[3] run          hash of the run; with a fencing token
  KEYS[4] quota        hash of the user's counted uses, see include/quotas.lua; with q and c
  KEYS[5] reservations sorted set of the user's reservations, one per call in flight; with q and c
  KEYS[6] outbox       stream of usage records (field r, with their trace in t) and refusals (field x); with r and x
  KEYS[7] recentUsage  list of the user's usage records, newest first; with r
  KEYS[8] activeRuns   sorted set of runs that have not ended; with e
  KEYS[9] runsInFlight sorted set of the user's runs that have not ended; with e
  KEYS[10] thread      stream of the thread's messages; with t
  KEYS[last] unsuccessfulRuns  sorted set of runs that failed or were cancelled, scored by their end, ms; with u
  ARGV[1...7] the log, see include/events.lua
  ARGV[8] fencing token of the claim (field `epoch` of the run), "" outside a run
  ARGV[9] number of events of the run that the writer knows to be in the log before these
  ARGV[10] number of events
  ARGV[11] letters of the options, in the order of their arguments, which follow:
           q  reservation of a tool call that begins with these events (JSON, see `reserve` in include/quotas.lua)
           c  commit of a tool call (JSON, see include/quotas.lua)
           e  the run ends: its status, its member of activeRuns ("<user id> <run id>"), and 1 when it may have a
              journal of earlier appends
           u  the run that ends failed or was cancelled: the code of the failure or "", maximum number of entries of
              unsuccessfulRuns, seconds that the set is kept
           t  message to add to the thread if it still exists (JSON), maximum number of messages, of bytes per thread
  then per event: type, timestamp, fields (see include/events.lua), and the letters of what follows:
           r  usage record (JSON)
           x  refusal (JSON)
           j  journal field and its value
  Returns { "appended" | "repeated", last seq, epoch, cancel requested (0 | 1) }, with a reservation followed by
          "reserved", now, status... or "refused", now, index of the limit or 0, status...;
          or { "fenced" } or { "finished" } or
          { "behind" } when Redis lost the run, a claim or events that it had acknowledged to the writer
]]
--@include time
--@include streams
--@include events
--@include owner
local run, runEpoch, known, count, options = KEYS[3], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local at = 12
local reservation, settlement, ending, unsuccessful, message
for letter in string.gmatch(options, '%a') do
  if letter == 'q' then
    reservation, at = ARGV[at], at + 1
  elseif letter == 'c' then
    settlement, at = ARGV[at], at + 1
  elseif letter == 'e' then
    ending, at = { status = ARGV[at], member = ARGV[at + 1], hasJournal = ARGV[at + 2] == '1' }, at + 3
  elseif letter == 'u' then
    unsuccessful, at = { code = ARGV[at], entries = tonumber(ARGV[at + 1]), seconds = ARGV[at + 2] }, at + 3
  else
    message, at = { text = ARGV[at], messages = ARGV[at + 1], bytes = ARGV[at + 2], existing = true }, at + 3
  end
end

-- The request, its caller and the journal are needed only while the run is executed. An ended run is kept for a day, so
-- these fields are removed. The message remains in its thread.
local function endRun()
  redis.call('ZREM', KEYS[8], ending.member)
  redis.call('ZREM', KEYS[9], string.match(ending.member, '%S+$'))
  if not ending.hasJournal then
    redis.call('HDEL', run, 'message', 'caller', 'job')
    return
  end
  local unneeded = { 'message', 'caller', 'job' }
  local journal = { ['tool:'] = true, ['step:'] = true, ['input:'] = true, ['answer:'] = true }
  for _, field in ipairs(redis.call('HKEYS', run)) do
    if journal[string.match(field, '^%a+:') or ''] then unneeded[#unneeded + 1] = field end
  end
  -- Lua limits the number of arguments of a call.
  for i = 1, #unneeded, 1000 do redis.call('HDEL', run, unpack(unneeded, i, math.min(i + 999, #unneeded))) end
end

local function listUnsuccessful(now)
  local set = KEYS[#KEYS]
  redis.call('ZADD', set, now, ending.member)
  redis.call('ZREMRANGEBYRANK', set, 0, -unsuccessful.entries - 1)
  redis.call('EXPIRE', set, unsuccessful.seconds)
  if unsuccessful.code ~= '' then redis.call('HSET', run, 'failure', unsuccessful.code) end
end

-- Commits and reserves, and completes the reply. An existing reservation of the call is extended, so a repetition
-- reserves once.
local function replied(result, now, commit)
  if not reservation and not commit then return result end
--@include quotas
  if commit then commitUse(KEYS[4], commit, now) end
  if not reservation then return result end
  local allowed, second, third = reserve(KEYS[4], KEYS[5], cjson.decode(reservation), now)
  result[5], result[6] = allowed and 'reserved' or 'refused', now
  if not allowed then result[7] = second end
  for _, number in ipairs(allowed and second or third) do result[#result + 1] = number end
  return result
end

local log = openLog(KEYS[1], KEYS[2], redis.call('TIME'))

local cancel = 0
if runEpoch ~= '' then
  local state, requested = ownerOf(run, runEpoch, known, count)
  if state == 'repeated' then return replied({ state, log.seq, log.epoch, requested }, log.now) end
  if state ~= 'owned' then return { state } end
  cancel = requested
end

local commit = settlement and cjson.decode(settlement)
-- The release of a reservation must be the first write of the script that ends the call: Redis allows a removal without
-- free memory, and then also the later writes of the script. So an executed call is always recorded.
if commit then redis.call('ZREM', KEYS[5], commit.member) end
for i = 1, count do
  appendEvent(log, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  local effects = ARGV[at + 3]
  at = at + 4
  for effect in string.gmatch(effects, '%a') do
    if effect == 'r' then
      writeRecord(log, KEYS[6], KEYS[7], ARGV[at])
    elseif effect == 'x' then
      redis.call('XADD', KEYS[6], '*', 'x', ARGV[at])
    else
      redis.call('HSET', run, ARGV[at], ARGV[at + 1])
      at = at + 1
    end
    at = at + 1
  end
end
closeLog(log)
if message then
--@include threads
  addMessage(KEYS[10], message.text, message)
end

if runEpoch ~= '' then
  local fields = fieldsAfter(log, known, count)
  if ending then
    local n = #fields
    fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'status', ending.status, 'ended_at', log.nowText
    fields[n + 5], fields[n + 6] = 'last_seq', log.seqText
  end
  redis.call('HSET', run, unpack(fields))
  if ending then endRun() end
  if unsuccessful then listUnsuccessful(log.nowText) end
end
return replied({ 'appended', log.seq, log.epoch, cancel }, log.now, commit)
