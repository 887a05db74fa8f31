--[[
  Appends a redaction entry to the ledger's own outbox and moves the cursor of the erasure past the records that it
  lists, in one step. Sent twice, it writes one entry.

  KEYS[1] outbox   stream of corrections that have not been ingested yet
  KEYS[2] erasure  hash of the erasure, see Erasures
  ARGV[1] cursor as the caller read it
  ARGV[2] cursor after this step
  ARGV[3] redaction entry (JSON), "" when none of the records belongs to the user
  ARGV[4] number of records that it lists
  Returns 1, or 0 when the cursor has another value
]]
if (redis.call('HGET', KEYS[2], 'cursor') or '0') ~= ARGV[1] then return 0 end
if ARGV[3] ~= '' then redis.call('XADD', KEYS[1], '*', 'r', ARGV[3]) end
redis.call('HSET', KEYS[2], 'cursor', ARGV[2])
redis.call('HINCRBY', KEYS[2], 'listed', ARGV[4])
return 1
