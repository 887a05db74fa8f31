--[[
  Streams with a bound in bytes. The last field of each entry, `b`, is the total size of all entries before it. The size
  of the remaining entries follows from the oldest entry and the total, so MAXLEN and expiry cannot make a counter
  drift.
  An entry without `b` was written by an older version: its size is unknown, and it is removed first.
]]

-- Bytes of an entry in addition to its values: ids, field names, listpack lengths, rounding of the allocator.
local ENTRY_OVERHEAD = 64

local function bytesBefore(entry)
  local fields = entry[2]
  return fields[#fields - 1] == 'b' and tonumber(fields[#fields]) or nil
end

--[[
  Removes the oldest entries until at most `most` bytes are left. One call removes at most 256 entries, so that no call
  takes long. The newest entry stays, whatever its size.
  total: bytes of all entries ever written
  Returns the bytes before the oldest remaining entry
]]
local function trimBytes(stream, total, most)
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local before = 0
  for _ = 1, 256 do
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not oldest then return total end
    before = bytesBefore(oldest) or 0
    if total - before <= most or oldest[1] == newest[1] then return before end
    redis.call('XDEL', stream, oldest[1])
  end
  return before
end
