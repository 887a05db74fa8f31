--[[
  Appends events to the logs of several users, each entry as `appendEvents` does, without reservation, commit, record,
  thread message and end of a run. An entry that fails does not affect the others: what it needs is checked and written
  by itself. If Redis rejects every write (no memory, a failed disk, a replica), the script fails as a whole.

  KEYS per entry: log, logState, and run if it has a fencing token; see appendEvents
  ARGV[1...7] the log, see include/events.lua; the channel (1) is that of each entry instead
  ARGV[8] number of entries
  then per entry: channel, fencing token or "", number of events of the run that the writer knows to be in the log before
  these, number of events; and per event: type, timestamp, fields, and "j" with journal field and value, or ""
  Returns per entry, in their order: the last seq when its events were appended; or { "appended" | "repeated", last seq,
          cancel requested (0 | 1) }, { "fenced" }, { "finished" }, { "behind" }, or { "failed", message of the error }
]]
--@include time
--@include streams
--@include events
--@include owner
local times = logTimes(redis.call('TIME'))
local key, at

local function append(channel, token, known, count)
  local run = token ~= '' and KEYS[key + 2]
  local log = openLog(KEYS[key], KEYS[key + 1], nil, times, channel)
  local cancel = 0
  if run then
    local state, requested = ownerOf(run, token, known, count)
    if state == 'repeated' then return { state, log.seq, requested } end
    if state ~= 'owned' then return { state } end
    cancel = requested
  end
  local from = at
  for i = 1, count do
    appendEvent(log, ARGV[from], ARGV[from + 1], ARGV[from + 2])
    if ARGV[from + 3] == 'j' then
      redis.call('HSET', run, ARGV[from + 4], ARGV[from + 5])
      from = from + 2
    end
    from = from + 4
  end
  closeLog(log)
  if run then redis.call('HSET', run, unpack(fieldsAfter(log, known, count))) end
  return cancel == 0 and log.seq or { 'appended', log.seq, cancel }
end

-- Errors of one entry's keys and arguments. Redis returns any other error for each write of the script.
local function isOfEntry(message)
  return string.match(message, '^WRONGTYPE') or string.match(message, '^ERR') or not string.match(message, '^%u+ ')
end

local replies = {}
key, at = 1, 9
for i = 1, tonumber(ARGV[8]) do
  local channel, token, known, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 4
  local done, reply = pcall(append, channel, token, known, count)
  if not done then
    local message = type(reply) == 'table' and reply.err or tostring(reply)
    if not isOfEntry(message) then error(reply, 0) end
    reply = { 'failed', message }
  end
  replies[i] = reply
  key = key + (token == '' and 2 or 3)
  for _ = 1, count do at = at + (ARGV[at + 3] == 'j' and 6 or 4) end
end
return replies
