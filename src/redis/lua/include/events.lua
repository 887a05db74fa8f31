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
local function openLog(log, logState, time)
  local state = redis.call('HMGET', logState, 'epoch', 'seq', 'bytes', 'trimmed', 'kept')
  local now = millis(time)
  local renewal = math.ceil(ARGV[3] / 64)
  local kept = math.floor(now / renewal)
  return {
    log = log,
    logState = logState,
    now = now,
    nowText = string.format('%d', now),
    renewal = renewal,
    kept = kept,
    renews = not state[5] or kept ~= tonumber(state[5]),
    epoch = state[1] or newEpoch(time),
    seq = tonumber(state[2] or 0),
    bytes = tonumber(state[3] or 0),
    trimmed = state[4] or '0',
    appended = 0,
  }
end

-- isFollowed: whether the caller appends another event. The last one of an append limits the length of the log.
local function appendEvent(log, type, timestamp, fields, isFollowed)
  log.seq = log.seq + 1
  log.appended = log.appended + 1
  -- Redis formats a number with 17 digits, which costs more than the command. `%d` is exact up to 2^53.
  local seq = string.format('%d', log.seq)
  log.seqText = seq
  fields = '{"seq":' .. seq .. ',' .. fields
  local id, bytes = seq .. '-0', string.format('%d', log.bytes)
  if isFollowed then
    redis.call('XADD', log.log, id, 't', type, 's', timestamp, 'a', log.nowText, 'f', fields, 'b', bytes)
  else
    redis.call('XADD', log.log, 'MAXLEN', '~', ARGV[2], id,
      't', type, 's', timestamp, 'a', log.nowText, 'f', fields, 'b', bytes)
  end
  log.bytes = log.bytes + ENTRY_OVERHEAD + #type + #timestamp + #fields
  redis.call('SPUBLISH', ARGV[1], 'e' .. log.epoch .. ' ' .. seq .. ' ' .. type .. ' ' .. timestamp .. ' ' .. fields)
end

local function closeLog(log)
  local trimmed, maxBytes = log.trimmed, tonumber(ARGV[5])
  -- MAXLEN and age also remove entries without updating `trimmed`, so `trimmed` is recomputed here. The log is read
  -- only when it may be too large.
  if log.bytes > maxBytes and log.bytes - trimmed > maxBytes then
    trimmed = string.format('%d', trimBytes(log.log, log.bytes, maxBytes))
  end
  local bytes = string.format('%d', log.bytes)
  if log.renews or trimmed ~= log.trimmed then
    redis.call('HSET', log.logState, 'epoch', log.epoch, 'seq', log.seqText, 'bytes', bytes,
      'trimmed', trimmed, 'kept', string.format('%d', log.kept))
  else
    redis.call('HSET', log.logState, 'seq', log.seqText, 'bytes', bytes)
  end
  local maxAge = tonumber(ARGV[3])
  if log.renews then
    redis.call('PEXPIRE', log.logState, ARGV[4] * 1000 + log.renewal)
    redis.call('PEXPIRE', log.log, maxAge + log.renewal)
  end
  -- Removes expired events in small numbers, on every 16th append: no long pause, and no sweep over all users.
  if log.seq % 16 >= log.appended then return end
  for _ = 1, 32 do
    local oldest = redis.call('XRANGE', log.log, '-', '+', 'COUNT', 1)[1]
    if not oldest or log.now - tonumber(oldest[2][6]) <= maxAge then break end
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
  if length == 1 or log.renews then redis.call('PEXPIRE', recentUsage, 30 * ARGV[3] + log.renewal) end
end
