--[[
  Replaces records of the ledger by their erased form. A stream entry cannot be changed, so the script adds the erased
  form to a sorted set and deletes the entry; readers merge both. The hash of a record does not change.

  KEYS[1] ledger   stream, see ingestUsage
  KEYS[2] erased   sorted set: "<sequence> <ms when appended> <JSON>", scored by sequence; trimmed with the ledger
  KEYS[3] erasure  hash of the erasure, see Erasures
  ARGV[1...] per record: sequence, erased form (JSON)
  Returns the number of records replaced; a record that no longer exists, or has another hash, is skipped
]]
local HASH = '"hash":"([^"]*)"}$'
local replaced = 0
for i = 1, #ARGV, 2 do
  local id = ARGV[i] .. '-0'
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry and string.match(entry[2][2], HASH) == string.match(ARGV[i + 1], HASH) then
    redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i] .. ' ' .. (entry[2][4] or '') .. ' ' .. ARGV[i + 1])
    redis.call('XDEL', KEYS[1], id)
    replaced = replaced + 1
  end
end
if replaced > 0 then redis.call('HINCRBY', KEYS[3], 'records', replaced) end
return replaced
