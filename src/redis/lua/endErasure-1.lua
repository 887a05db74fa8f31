--[[
  Deletes the account of a user at the end of an erasure, and the block with it. It does nothing when another erasure or
  none is in progress: then the account contains data that is newer than the erasure.

  KEYS[1] account  hash, see beginErasure
  ARGV[1] id of the erasure
  Returns 1 when deleted
]]
if redis.call('HGET', KEYS[1], 'erasure') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
