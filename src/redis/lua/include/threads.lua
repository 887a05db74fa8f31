--[[
  The threads of one user: sorted set `threads` (id -> last change, ms), hash `threadInfo` (id -> JSON) and a stream of
  messages per thread. A thread without a change after `since` no longer counts; its stream has expired.
  Requires include/streams.lua.
]]
local function isThread(threads, id, since)
  local changed = redis.call('ZSCORE', threads, id)
  return changed ~= false and tonumber(changed) > since
end

local function countThreads(threads, since)
  return redis.call('ZCOUNT', threads, '(' .. since, '+inf')
end

local function pruneThreads(threads, threadInfo, since)
  local expired = redis.call('ZRANGE', threads, '-inf', since, 'BYSCORE', 'LIMIT', 0, 500)
  if #expired == 0 then return end
  redis.call('ZREM', threads, unpack(expired))
  redis.call('HDEL', threadInfo, unpack(expired))
end

-- Adds a message (JSON) to a thread. most: { messages, bytes, existing: only if the thread has a message }
local function addMessage(thread, message, most)
  local newest = redis.call('XREVRANGE', thread, '+', '-', 'COUNT', 1)[1]
  if not newest and most.existing then return end
  local before = newest and (bytesBefore(newest) or 0) + ENTRY_OVERHEAD + #newest[2][2] or 0
  redis.call('XADD', thread, 'MAXLEN', '~', most.messages, '*', 'm', message, 'b', string.format('%d', before))
  local total = before + ENTRY_OVERHEAD + #message
  if total > tonumber(most.bytes) then trimBytes(thread, total, tonumber(most.bytes)) end
end
