--[[
  Streams with a bound in bytes. The last field of each entry, `b`, is the number of bytes of all entries before it, so that
  the size of what is left follows from the oldest entry and the total, without a count that MAXLEN and expiry would falsify.
  An entry without `b` was written by a version before this one: its size is unknown, and it is removed first.
]]

-- Bytes of an entry beside its values: ids, field names, the lengths of the listpack, rounding of the allocator.
local ENTRY_OVERHEAD = 64

local function entryBytes(...)
  local bytes = ENTRY_OVERHEAD
  for _, value in ipairs({ ... }) do bytes = bytes + #value end
  return bytes
end

local function bytesBefore(entry)
  local fields = entry[2]
  return fields[#fields - 1] == 'b' and tonumber(fields[#fields]) or nil
end

--[[
  Removes the oldest entries until at most `most` bytes are left, at most 256 per call so that no call takes long. The newest
  entry stays, whatever its size.
  total: bytes of all entries ever written
  Returns the bytes before the oldest entry that is left
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
