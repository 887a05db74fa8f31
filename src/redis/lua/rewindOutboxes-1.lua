--[[
  Stores which servers have the outboxes, and lets ingestion read an outbox from its beginning after its server has
  changed. It writes nothing if the ledger has changed since the ids of its records were read.

  KEYS[1] state  hash of the ledger: hash (of the last record), rewinds (number of calls of this script that succeeded; a batch that was
                 read before is rejected), and per outbox: "cursor:<outbox>", "server:<outbox>" -> server id,
                 "counted:<outbox>" -> refusals up to this entry were counted before the rewind
  ARGV[1] hash of the ledger's last record as the writer read it
  ARGV[2] rewinds as the writer read it, "" for none
  ARGV[3...] per outbox: name, server id, last entry id of this server, or "" if the cursor stays
  Returns 1 when stored, 0 when the writer must read the state again
]]
local state = KEYS[1]
local read = redis.call('HMGET', state, 'hash', 'rewinds')
if (read[1] or '') ~= ARGV[1] or (read[2] or '') ~= ARGV[2] then return 0 end

local function isBefore(one, other)
  local ms, n = string.match(one, '(%d+)-(%d+)')
  local otherMs, otherN = string.match(other, '(%d+)-(%d+)')
  if ms ~= otherMs then return tonumber(ms) < tonumber(otherMs) end
  return tonumber(n) < tonumber(otherN)
end

for i = 3, #ARGV, 3 do
  local outbox, server, last = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  redis.call('HSET', state, 'server:' .. outbox, server)
  if last ~= '' then
    local known = redis.call('HMGET', state, 'cursor:' .. outbox, 'counted:' .. outbox)
    local counted = known[1] or '0-0'
    -- An earlier rewind may not have reached its end.
    if known[2] and isBefore(counted, known[2]) then counted = known[2] end
    -- Entries after the last one of this server do not exist yet, so none of them was counted.
    if isBefore(last, counted) then counted = last end
    redis.call('HSET', state, 'counted:' .. outbox, counted)
    redis.call('HDEL', state, 'cursor:' .. outbox)
  end
end
redis.call('HINCRBY', state, 'rewinds', 1)
return 1
