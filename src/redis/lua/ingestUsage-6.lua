--[[
  Moves a batch from the outboxes into the ledger and updates the tally and the window of its hour. It writes nothing if
  the ledger or one of the outbox cursors has changed since the writer read them.

  The hash of the head is the fencing token. Each record is chained to the one before, so this hash identifies the whole
  history of the ledger. A writer that resumes after a pause, or that sends a batch twice, presents an old head or an
  old cursor, and the script rejects its batch. Comparing the sequence alone would accept a writer after the ledger was
  lost and grew again to the same length. All records and refusals of a batch are of one hour, so that all keys are
  known beforehand.

  KEYS[1] ledger  stream: one record per entry, id "<sequence>-0", fields r (JSON), a (ms when it was appended)
  KEYS[2] state   hash: sequence, hash (of the last record), "cursor:<outbox>" -> last ingested outbox entry, rewinds
                  (see rewindOutboxes-1.lua)
  KEYS[3] tally   hash of the hour: row -> measures, integers separated by spaces; expires
  KEYS[4] window  hash of the hour: closed (number of closed revisions), "r<n>" (their JSON), and of the open revision
                  first, last (sequences), count, totals (measures); never expires, because billing uses it
  KEYS[5] open    sorted set of hours with an open revision, scored by the time (ms) at which it closes
  KEYS[6] returned  set of the ids of records that were resubmitted after a loss, or that the ledger has although their
                  outbox may have lost them. Any other record with one of these ids, from a call that was repeated or
                  swept since, is skipped; expires
  ARGV[1] hash of the ledger's last record as the writer read it, "" before the first
  ARGV[2] hash of the last record of this batch, or ARGV[1] when it has none
  ARGV[3] hour, e.g. 2026-11-20T10
  ARGV[4] end of the hour, ms
  ARGV[5] ms that a window stays open after the end of an hour
  ARGV[6] seconds that a tally is kept
  ARGV[7] sum of the measures of the records
  ARGV[8] number of cursors
  ARGV[9] number of tally rows
  ARGV[10] number of ids that are resubmitted with this batch
  ARGV[11] seconds that these ids are stored
  ARGV[12] rewinds as the writer read it, "" for none; compared if there are cursors
  ARGV[13...] per cursor: outbox, cursor as the writer read it ("" before the first), cursor after this batch;
              per tally row: row, measures to add; the ids; then the records (JSON), in order
  Returns 1 when appended, 0 when the writer must read the state again
]]
--@include time
local ledger, state, tally, window, open, returned = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local hour, totals, cursors, rows, ids = ARGV[3], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local FIRST, HOUR_MS = 13, 3600000
local firstRow = FIRST + 3 * cursors
local firstId = firstRow + 2 * rows
local firstRecord = firstId + ids
local records = #ARGV - firstRecord + 1

local head = redis.call('HMGET', state, 'sequence', 'hash', 'rewinds')
if (head[2] or '') ~= ARGV[1] then return 0 end
local fields = {}
for i = FIRST, firstRow - 1, 3 do fields[#fields + 1] = 'cursor:' .. ARGV[i] end
if cursors > 0 then
  if (head[3] or '') ~= ARGV[12] then return 0 end
  for i, cursor in ipairs(redis.call('HMGET', state, unpack(fields))) do
    if (cursor or '') ~= ARGV[FIRST + 3 * i - 2] then return 0 end
  end
end
-- A record of this batch may have been resubmitted after the writer read the state. A batch that resubmits records
-- itself is protected by its cursor or its head.
if ids == 0 and redis.call('EXISTS', returned) == 1 then
  for i = firstRecord, #ARGV do
    -- Every record begins with its id. Decoding could fail: a record with half of a surrogate pair would block
    -- ingestion.
    local id = string.match(ARGV[i], '^{"id":"([^"]*)"')
    if redis.call('SISMEMBER', returned, id) == 1 then return 0 end
  end
end

-- Measures are integers below 2^53.
local function sum(measures, added)
  if not measures or measures == '' then return added end
  local known, result, count = {}, {}, 0
  for number in string.gmatch(measures, '%S+') do known[#known + 1] = number end
  for number in string.gmatch(added, '%S+') do
    count = count + 1
    result[count] = string.format('%d', (known[count] or 0) + number)
  end
  return table.concat(result, ' ')
end

local sequence = tonumber(head[1] or '0')
if records > 0 then
  local now = millis(redis.call('TIME'))
  local revision = redis.call('HMGET', window, 'last', 'count', 'totals')
  -- The XADD is the first write: Redis rejects an id that is not above the last one, and then nothing of the batch was
  -- written.
  local nowText = string.format('%d', now)
  for i = firstRecord, #ARGV do
    redis.call('XADD', ledger, string.format('%d', sequence + i - firstRecord + 1) .. '-0',
      'r', ARGV[i], 'a', nowText)
  end
  if not revision[1] then
    -- A record that arrives after its window has closed, or should have, opens a revision that closes with the hour of
    -- arrival.
    local closesAt = ARGV[4] + ARGV[5]
    if closesAt <= now then closesAt = (math.floor(now / HOUR_MS) + 1) * HOUR_MS + ARGV[5] end
    redis.call('ZADD', open, closesAt, hour)
    redis.call('HSET', window, 'first', string.format('%.0f', sequence + 1))
  end
  sequence = sequence + records
  redis.call('HSET', window, 'last', string.format('%.0f', sequence), 'count', (revision[2] or 0) + records,
    'totals', sum(revision[3], totals))
end

-- Lua limits the number of arguments of a call.
for from = firstRow, firstId - 1, 1000 do
  local names, changed = {}, {}
  for i = from, math.min(from + 998, firstId - 2), 2 do names[#names + 1] = ARGV[i] end
  for i, measures in ipairs(redis.call('HMGET', tally, unpack(names))) do
    changed[2 * i - 1], changed[2 * i] = names[i], sum(measures, ARGV[from + 2 * i - 1])
  end
  redis.call('HSET', tally, unpack(changed))
end
if rows > 0 then redis.call('EXPIRE', tally, ARGV[6]) end
for i = firstId, firstRecord - 1 do redis.call('SADD', returned, ARGV[i]) end
if ids > 0 then redis.call('EXPIRE', returned, ARGV[11]) end

local changes = { 'sequence', string.format('%d', sequence), 'hash', ARGV[2] }
for i, cursor in ipairs(fields) do
  changes[#changes + 1], changes[#changes + 2] = cursor, ARGV[FIRST + 3 * i - 1]
end
redis.call('HSET', state, unpack(changes))
return 1
