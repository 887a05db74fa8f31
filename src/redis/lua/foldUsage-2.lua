--[[
  Moves records of one outbox into the ledger: all of them, or none when the ledger or the outbox has moved on since the
  writer looked. The hash chain was computed by the writer, so the check of the sequence is what keeps two writers from
  both appending; a batch that is sent twice is refused the second time.

  KEYS[1] ledger  stream: one record an entry, id "<sequence>-0", field r
  KEYS[2] state   hash: sequence, hash, "cursor:<partition>" -> last outbox entry folded
  ARGV[1] partition
  ARGV[2] cursor of the partition as the writer knows it, "" before the first
  ARGV[3] cursor after this batch
  ARGV[4] sequence of the ledger as the writer knows it
  ARGV[5] hash of the last record of this batch
  ARGV[6...] records (JSON), in order
  Returns 1 when appended, 0 when the writer must look again
]]
local ledger, state = KEYS[1], KEYS[2]
local cursor = 'cursor:' .. ARGV[1]
local known = redis.call('HMGET', state, 'sequence', cursor)
local sequence = tonumber(known[1] or '0')
if sequence ~= tonumber(ARGV[4]) or (known[2] or '') ~= ARGV[2] then return 0 end
for i = 6, #ARGV do
  sequence = sequence + 1
  redis.call('XADD', ledger, string.format('%d', sequence) .. '-0', 'r', ARGV[i])
end
redis.call('HSET', state, 'sequence', string.format('%d', sequence), 'hash', ARGV[5], cursor, ARGV[3])
return 1
