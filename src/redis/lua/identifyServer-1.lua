--[[
  Returns the id of the Redis server, and of the server whose ledger the archive last agreed with.

  KEYS[1] state  hash of the ledger: agreed (server id)
  Returns { server id, agreed server id or "", ms since the epoch }
]]
--@include server
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return { serverId(), redis.call('HGET', KEYS[1], 'agreed') or '', now }
