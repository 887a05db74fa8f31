--[[
  Removes the oldest records of the ledger, a bounded number of them: only what every consumer has confirmed, what no
  open window needs, and what was appended long enough ago. Without a consumer nothing goes.

  KEYS[1] ledger     stream, see foldUsage
  KEYS[2] state      hash: trimmed (last sequence removed) and trimmed_hash (its hash, which the chain goes on from)
  KEYS[3] consumers  hash, see confirmCursor
  ARGV[1] ms that a record is kept at least
  ARGV[2] greatest number of records to remove
  ARGV[3] lowest first sequence of the open windows as the writer knows it, "" for none; one that has opened since has
          only records that are too young to go
  Returns number of records removed
]]
local ledger, state, consumers = KEYS[1], KEYS[2], KEYS[3]
local limit = nil
for _, confirmed in ipairs(redis.call('HVALS', consumers)) do
  local sequence = tonumber(string.match(confirmed, '^%S+'))
  if not limit or sequence < limit then limit = sequence end
end
if not limit then return 0 end
if ARGV[3] ~= '' then limit = math.min(limit, ARGV[3] - 1) end

local time = redis.call('TIME')
local appendedBefore = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1]
local last = nil
for _, entry in ipairs(redis.call('XRANGE', ledger, '-', '+', 'COUNT', ARGV[2])) do
  if tonumber(string.match(entry[1], '^%d+')) > limit or tonumber(entry[2][4]) >= appendedBefore then break end
  last = entry
end
if not last then return 0 end
local sequence = string.match(last[1], '^%d+')
-- Every record ends with it. Decoded, one with half of a surrogate pair in it would fail, now and each time from now on.
local hash = string.match(last[2][2], '"hash":"([^"]*)"}$')
redis.call('HSET', state, 'trimmed', sequence, 'trimmed_hash', hash)
return redis.call('XTRIM', ledger, 'MINID', string.format('%.0f', sequence + 1) .. '-0')
