--[[
  Writes notes of an erasure, and its next phase, unless another worker has moved it on: one that was stopped must not take a
  finished erasure back.

  KEYS[1] erasure  hash of the erasure, see Erasures
  ARGV[1] phase as the caller knows it
  ARGV[2...] field, value, field, value, ...
  Returns 1, or 0 when it is in another phase
]]
if redis.call('HGET', KEYS[1], 'phase') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
