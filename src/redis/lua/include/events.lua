--[[
  The event log of one user, for scripts that append to it: `openLog`, any number of `appendEvent`, `closeLog`.
  An event is { type, timestamp, fields (a JSON object with at least one member) }; the id of its entry is "<seq>-0".
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
local function openLog(keys, time)
  local state = redis.call('HMGET', keys.logState, 'epoch', 'seq', 'bytes', 'trimmed', 'kept')
  local now = millis(time)
  local renewal = math.ceil(ARGV[3] / 64)
  local kept = string.format('%d', math.floor(now / renewal))
  return {
    keys = keys,
    now = now,
    nowText = string.format('%d', now),
    kept = kept,
    renewal = renewal,
    renews = state[5] ~= kept,
    epoch = state[1] or newEpoch(time),
    seq = tonumber(state[2] or '0'),
    bytes = tonumber(state[3] or '0'),
    trimmed = tonumber(state[4] or '0'),
    appended = 0,
  }
end

local function appendEvent(log, type, timestamp, fields)
  log.seq = log.seq + 1
  log.appended = log.appended + 1
  -- Redis formats a number with 17 digits, which costs more than the command. `%d` is exact up to 2^53.
  local seq = string.format('%d', log.seq)
  fields = '{"seq":' .. seq .. ',' .. string.sub(fields, 2)
  redis.call('XADD', log.keys.log, 'MAXLEN', '~', ARGV[2], seq .. '-0',
    't', type, 's', timestamp, 'a', log.nowText, 'f', fields, 'b', string.format('%d', log.bytes))
  log.bytes = log.bytes + entryBytes(type, timestamp, fields)
  local published = 'e' .. log.epoch .. ' ' .. seq .. ' ' .. type .. ' ' .. timestamp .. ' ' .. fields
  redis.call('SPUBLISH', ARGV[1], published)
end

local function closeLog(log)
  local maxAge, maxBytes = tonumber(ARGV[3]), tonumber(ARGV[5])
  -- MAXLEN and age also remove entries without updating `trimmed`, so `trimmed` is recomputed here. The log is read
  -- only when it may be too large.
  if log.bytes - log.trimmed > maxBytes then log.trimmed = trimBytes(log.keys.log, log.bytes, maxBytes) end
  redis.call('HSET', log.keys.logState, 'epoch', log.epoch, 'seq', string.format('%d', log.seq),
    'bytes', string.format('%d', log.bytes), 'trimmed', string.format('%d', log.trimmed), 'kept', log.kept)
  if log.renews then
    redis.call('PEXPIRE', log.keys.logState, ARGV[4] * 1000 + log.renewal)
    redis.call('PEXPIRE', log.keys.log, maxAge + log.renewal)
  end
  -- Removes expired events in small numbers, on every 16th append: no long pause, and no sweep over all users.
  if log.seq % 16 >= log.appended then return end
  for _ = 1, 32 do
    local oldest = redis.call('XRANGE', log.keys.log, '-', '+', 'COUNT', 1)[1]
    if not oldest or log.now - tonumber(oldest[2][6]) <= maxAge then break end
    redis.call('XDEL', log.keys.log, oldest[1])
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
