--[[
  The event log of one user, for scripts that append to it: `openLog`, any number of `appendEvent`, `closeLog`.
  An event is { type, timestamp, fields (a JSON object with at least one member, without its opening brace) }; the id of its
  entry is "<seq>-0".
  The arguments of each of these scripts begin with
  ARGV[1] the user's channel
  ARGV[2] maximum length of the log
  ARGV[3] maximum age of an event, ms
  ARGV[4] seconds that an unused log keeps its log epoch
  ARGV[5] maximum size of the log, bytes
  ARGV[6] number of the user's usage records to keep for the user's own tools
  ARGV[7] trace of the usage records, "" for none
  The expiry of the keys is renewed once per 64th of the maximum age, of which `kept` is the number, and is longer by
  as much. In logState, `bytes` is the number of bytes ever appended, and `trimmed` the number of those that have been removed.
  Requires include/time.lua and include/streams.lua.
]]
-- Returns what the logs of one script have in common.
local function logTimes(time)
  local now, maxAge = millis(time), tonumber(ARGV[3])
  local renewal = math.ceil(maxAge / 64)
  return {
    time = time,
    now = now,
    nowText = string.format('%d', now),
    maxAge = maxAge,
    maxBytes = tonumber(ARGV[5]),
    renewal = renewal,
    kept = math.floor(now / renewal),
  }
end

-- times: of `logTimes`, or absent in a script that appends to one log
-- channel: the user's channel, if it is not the first argument
local function openLog(log, logState, time, times, channel)
  times = times or logTimes(time)
  local state = redis.call('HMGET', logState, 'epoch', 'seq', 'bytes', 'kept')
  return {
    log = log,
    logState = logState,
    channel = channel or ARGV[1],
    times = times,
    now = times.now,
    nowText = times.nowText,
    renews = tonumber(state[4] or 0) ~= times.kept,
    epoch = state[1] or newEpoch(times.time),
    seq = tonumber(state[2] or 0),
    bytes = tonumber(state[3] or 0),
    bytesText = state[3] or '0',
    appended = 0,
  }
end

local function appendEvent(log, type, timestamp, fields)
  log.seq = log.seq + 1
  log.appended = log.appended + 1
  -- Redis formats a number with 17 digits, which costs more than the command. `%d` is exact up to 2^53.
  local seq = string.format('%d', log.seq)
  log.seqText = seq
  fields = '{"seq":' .. seq .. ',' .. fields
  -- Redis removes whole nodes of about 100 entries, so every 16th event is often enough.
  if log.seq % 16 ~= 0 then
    redis.call('XADD', log.log, seq .. '-0', 't', type, 's', timestamp, 'a', log.nowText, 'f', fields, 'b', log.bytesText)
  else
    redis.call('XADD', log.log, 'MAXLEN', '~', ARGV[2], seq .. '-0',
      't', type, 's', timestamp, 'a', log.nowText, 'f', fields, 'b', log.bytesText)
  end
  log.bytes = log.bytes + ENTRY_OVERHEAD + #type + #timestamp + #fields
  log.bytesText = string.format('%d', log.bytes)
  redis.call('SPUBLISH', log.channel, 'e' .. log.epoch .. ' ' .. seq .. ' ' .. type .. ' ' .. timestamp .. ' ' .. fields)
end

local function closeLog(log)
  local times = log.times
  -- MAXLEN and age also remove entries without updating `trimmed`, so `trimmed` is recomputed here. The log is read
  -- only when it may be too large.
  if log.bytes > times.maxBytes then
    local trimmed = tonumber(redis.call('HGET', log.logState, 'trimmed') or 0)
    if log.bytes - trimmed > times.maxBytes then
      trimmed = trimBytes(log.log, log.bytes, times.maxBytes)
      redis.call('HSET', log.logState, 'trimmed', string.format('%d', trimmed))
    end
  end
  if log.renews then
    redis.call('HSET', log.logState, 'epoch', log.epoch, 'seq', log.seqText, 'bytes', log.bytesText,
      'kept', string.format('%d', times.kept))
    redis.call('PEXPIRE', log.logState, ARGV[4] * 1000 + times.renewal)
    redis.call('PEXPIRE', log.log, times.maxAge + times.renewal)
  else
    redis.call('HSET', log.logState, 'seq', log.seqText, 'bytes', log.bytesText)
  end
  -- Removes expired events in small numbers, on every 16th append: no long pause, and no sweep over all users.
  if log.seq % 16 >= log.appended then return end
  for _ = 1, 32 do
    local oldest = redis.call('XRANGE', log.log, '-', '+', 'COUNT', 1)[1]
    if not oldest or log.now - tonumber(oldest[2][6]) <= times.maxAge then break end
    redis.call('XDEL', log.log, oldest[1])
  end
end

-- Writes a usage record to the outbox of the partition and to the user's recent records. The trace is a separate field,
-- so that the hashed and billed bytes do not depend on tracing.
local function writeRecord(log, outbox, recentUsage, record)
  if ARGV[7] == '' then
    redis.call('XADD', outbox, '*', 'r', record)
  else
    redis.call('XADD', outbox, '*', 'r', record, 't', ARGV[7])
  end
  local length = redis.call('LPUSH', recentUsage, record)
  if length > tonumber(ARGV[6]) then redis.call('LTRIM', recentUsage, 0, ARGV[6] - 1) end
  if length == 1 or log.renews then redis.call('PEXPIRE', recentUsage, 30 * log.times.maxAge + log.times.renewal) end
end
