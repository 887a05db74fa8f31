--[[
  Stores that the archive contains no record that the ledger of this Redis lacks.

  KEYS[1] state  hash of the ledger: agreed (server id); never expires
  ARGV[1] id of the Redis server that was compared
  Returns 1, or 0 when this is another server
]]
--@include server
if serverId() ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'agreed', ARGV[1])
return 1
