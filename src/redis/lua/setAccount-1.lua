--[[
  Stores what an operator decided about a user and tells the nodes that hold the user, in one step.

  KEYS[1] account  hash: plan, blocked; kept until the operator decides otherwise
  ARGV[1] the user's channel
  ARGV[2] control message for the channel (JSON)
  ARGV[3...] field, value, ...
]]
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
redis.call('SPUBLISH', ARGV[1], 'c' .. ARGV[2])
return 1
