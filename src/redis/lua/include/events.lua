--[[
  The log of one user, for scripts that append to it: `openLog`, any number of `appendEvent`, `closeLog`.
  An event is { type, timestamp, fields (a JSON object of at least one member) }; its entry's id is "<seq>-0".
  options: { channel, length, maxAge (ms), stateSeconds, maxBytes }
  `bytes` of logState is the number of bytes ever appended, `trimmed` how many of them are known to have left the log.
  Needs include/streams.lua.
]]
local function openLog(keys, options, time)
  local state = redis.call('HMGET', keys.logState, 'epoch', 'seq', 'bytes', 'trimmed')
  return {
    keys = keys,
    options = options,
    now = time[1] * 1000 + math.floor(time[2] / 1000),
    -- Names a history of the log: one that begins after a loss begins at another time.
    epoch = state[1] or string.format('epoch_%x%05x', time[1], time[2]),
    seq = tonumber(state[2] or '0'),
    bytes = tonumber(state[3] or '0'),
    trimmed = tonumber(state[4] or '0'),
    appended = 0,
  }
end

local function appendEvent(log, type, timestamp, fields)
  log.seq = log.seq + 1
  log.appended = log.appended + 1
  fields = '{"seq":' .. log.seq .. ',' .. string.sub(fields, 2)
  local id = log.seq .. '-0'
  redis.call('XADD', log.keys.log, 'MAXLEN', '~', log.options.length, id,
    't', type, 's', timestamp, 'a', log.now, 'f', fields, 'b', string.format('%.0f', log.bytes))
  log.bytes = log.bytes + entryBytes(type, timestamp, fields)
  local published = 'e' .. log.epoch .. ' ' .. log.seq .. ' ' .. type .. ' ' .. timestamp .. ' ' .. fields
  redis.call('SPUBLISH', log.options.channel, published)
end

local function closeLog(log)
  local maxBytes = tonumber(log.options.maxBytes)
  -- MAXLEN and age remove entries too, which `trimmed` learns here: the log is read only when it may be too large.
  if log.bytes - log.trimmed > maxBytes then log.trimmed = trimBytes(log.keys.log, log.bytes, maxBytes) end
  redis.call('HSET', log.keys.logState, 'epoch', log.epoch, 'seq', log.seq,
    'bytes', string.format('%.0f', log.bytes), 'trimmed', string.format('%.0f', log.trimmed))
  redis.call('EXPIRE', log.keys.logState, log.options.stateSeconds)
  redis.call('PEXPIRE', log.keys.log, log.options.maxAge)
  -- Old events go a few at a time, on every sixteenth append: never a long pause, and no sweep over all users.
  if log.seq % 16 >= log.appended then return end
  for _ = 1, 32 do
    local oldest = redis.call('XRANGE', log.keys.log, '-', '+', 'COUNT', 1)[1]
    if not oldest or log.now - tonumber(oldest[2][6]) <= tonumber(log.options.maxAge) then break end
    redis.call('XDEL', log.keys.log, oldest[1])
  end
end

-- Writes a usage record to the partition's outbox and to the user's own latest ones. Its trace stands beside it and not in
-- it: what is hashed and billed is the same whether anybody looks on.
local function writeRecord(outbox, recentUsage, record, trace, kept, keptMs)
  if trace == '' then
    redis.call('XADD', outbox, '*', 'r', record)
  else
    redis.call('XADD', outbox, '*', 'r', record, 't', trace)
  end
  redis.call('LPUSH', recentUsage, record)
  redis.call('LTRIM', recentUsage, 0, kept - 1)
  redis.call('PEXPIRE', recentUsage, keptMs)
end
