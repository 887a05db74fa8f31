--[[
  Notes that the archive has nothing that the ledger of this Redis does not have.

  KEYS[1] state  hash of the ledger: agreed (server id); as lasting as the ledger
  ARGV[1] id of the Redis that was compared
  Returns 1, or 0 when this is another one
]]
--@include server
if serverId() ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'agreed', ARGV[1])
return 1
