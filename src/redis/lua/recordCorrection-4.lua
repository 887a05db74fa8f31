--[[
  Appends a correction to the ledger's own outbox, once per idempotency key.

  KEYS[1] outbox     stream of corrections that have not been ingested yet
  KEYS[2] key        hash of the idempotency key: request (digest), record (JSON); expires
  KEYS[3] corrected  hash: id of a corrected record -> sum of its corrections; never expires
  KEYS[4] used       set of the digests of idempotency keys under which records of this user were corrected; expires
  ARGV[1] digest of the request
  ARGV[2] record of the correction (JSON)
  ARGV[3] id of the corrected record
  ARGV[4] units of the correction
  ARGV[5] units of the corrected record: corrections never subtract more than these
  ARGV[6] seconds that the key is stored
  ARGV[7] digest of the idempotency key
  Returns { "recorded" | "repeated", record } or { "conflict" } or { "excessive", units that can still be subtracted }
]]
local outbox, key, corrected = KEYS[1], KEYS[2], KEYS[3]
local known = redis.call('HMGET', key, 'request', 'record')
if known[1] then
  if known[1] ~= ARGV[1] then return { 'conflict' } end
  return { 'repeated', known[2] }
end
local left = ARGV[5] + (redis.call('HGET', corrected, ARGV[3]) or 0)
if left + ARGV[4] < 0 then return { 'excessive', string.format('%.0f', left) } end
redis.call('XADD', outbox, '*', 'r', ARGV[2])
redis.call('HINCRBY', corrected, ARGV[3], ARGV[4])
redis.call('HSET', key, 'request', ARGV[1], 'record', ARGV[2])
redis.call('EXPIRE', key, ARGV[6])
redis.call('SADD', KEYS[4], ARGV[7])
redis.call('EXPIRE', KEYS[4], ARGV[6])
return { 'recorded', ARGV[2] }
