--[[
  Which Redis has the ledger, and whether its archive has agreed with what is in it.

  KEYS[1] state  hash of the ledger: agreed (server id)
  Returns { server id, server id that was agreed with or "", ms since the epoch }
]]
--@include server
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return { serverId(), redis.call('HGET', KEYS[1], 'agreed') or '', now }
