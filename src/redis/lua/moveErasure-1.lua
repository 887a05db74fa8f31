--[[
  Writes the progress and the next phase of an erasure, unless another worker has changed its phase. A worker that
  resumes after a pause must not move a finished erasure back.

  KEYS[1] erasure  hash of the erasure, see Erasures
  ARGV[1] phase as the caller read it
  ARGV[2...] field, value, field, value, ...
  Returns 1, or 0 when the erasure is in another phase
]]
if redis.call('HGET', KEYS[1], 'phase') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
