--[[
  Blocks a user for the duration of an erasure. Repeated, it returns the erasure that is in progress.

  KEYS[1] account  hash: plan, blocked, revoked_before, and erasure: id of the erasure in progress
  ARGV[1] id of a new erasure
  Returns the id of the erasure in progress
]]
redis.call('HSETNX', KEYS[1], 'erasure', ARGV[1])
-- For nodes of an older version, which does not check `erasure`.
redis.call('HSET', KEYS[1], 'blocked', '1')
return redis.call('HGET', KEYS[1], 'erasure')
