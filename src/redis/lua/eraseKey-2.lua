--[[
  Deletes a key of a user, or members of a sorted set that users share, while the erasure of the user is in progress. A
  worker that resumes after a pause must not delete data that the user created after the erasure ended.

  KEYS[1] account  hash, see beginErasure
  KEYS[2] key
  ARGV[1] id of the erasure
  ARGV[2...] members of the sorted set; none to delete the key
  Returns the number of keys or members deleted
]]
if redis.call('HGET', KEYS[1], 'erasure') ~= ARGV[1] then return 0 end
if #ARGV == 1 then return redis.call('UNLINK', KEYS[2]) end
return redis.call('ZREM', KEYS[2], unpack(ARGV, 2))
