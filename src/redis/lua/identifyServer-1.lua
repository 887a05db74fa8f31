--[[
  Returns the id of the Redis server, and of the server whose ledger the archive last agreed with.

  KEYS[1] state  hash of the ledger: agreed (server id)
  Returns { server id, agreed server id or "", ms since the epoch }
]]
--@include time
--@include server
local now = millis(redis.call('TIME'))
return { serverId(), redis.call('HGET', KEYS[1], 'agreed') or '', now }
