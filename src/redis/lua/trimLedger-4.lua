--[[
  Removes the oldest records of the ledger, a bounded number per call. It removes only records that every consumer has
  confirmed, that no open window needs, and that are old enough. Without a consumer it removes nothing.

  KEYS[1] ledger     stream, see ingestUsage
  KEYS[2] state      hash: trimmed (last sequence removed) and trimmed_hash (its hash, from which the chain continues)
  KEYS[3] consumers  hash, see confirmCursor
  KEYS[4] erased     sorted set of erased records, see eraseRecords: they replace entries of the stream
  ARGV[1] minimum age of a removed record, ms
  ARGV[2] maximum number of records to remove
  ARGV[3] lowest first sequence of the open windows as the writer read it, "" for none; a window that has opened since
          contains only records that are too young to be removed
  Returns the number of records removed
]]
--@include time
local ledger, state, consumers, erased = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local limit = nil
for _, confirmed in ipairs(redis.call('HVALS', consumers)) do
  local sequence = tonumber(string.match(confirmed, '^%S+'))
  if not limit or sequence < limit then limit = sequence end
end
if not limit then return 0 end
if ARGV[3] ~= '' then limit = math.min(limit, ARGV[3] - 1) end

local appendedBefore = millis(redis.call('TIME')) - ARGV[1]
-- An older version, which does not support erased records, trims only the stream.
redis.call('ZREMRANGEBYSCORE', erased, '-inf', redis.call('HGET', state, 'trimmed') or '0')
local records = {}
for _, entry in ipairs(redis.call('XRANGE', ledger, '-', '+', 'COUNT', ARGV[2])) do
  records[#records + 1] = { sequence = tonumber(string.match(entry[1], '^%d+')), appended = entry[2][4], json = entry[2][2] }
end
for _, member in ipairs(redis.call('ZRANGE', erased, '-inf', '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  local sequence, appended, json = string.match(member, '^(%d+) (%d*) (.*)$')
  records[#records + 1] = { sequence = tonumber(sequence), appended = appended, json = json }
end
table.sort(records, function(one, other) return one.sequence < other.sequence end)
local last, removed = nil, 0
for i = 1, math.min(#records, tonumber(ARGV[2])) do
  if records[i].sequence > limit or tonumber(records[i].appended) >= appendedBefore then break end
  last, removed = records[i], i
end
if not last then return 0 end
local sequence = string.format('%.0f', last.sequence)
-- Every record ends with its hash. Decoding could fail: a record with half of a surrogate pair would block trimming
-- permanently.
local hash = string.match(last.json, '"hash":"([^"]*)"}$')
redis.call('HSET', state, 'trimmed', sequence, 'trimmed_hash', hash)
redis.call('XTRIM', ledger, 'MINID', string.format('%.0f', last.sequence + 1) .. '-0')
redis.call('ZREMRANGEBYSCORE', erased, '-inf', sequence)
return removed
