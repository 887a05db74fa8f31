--[[
  Reads entries of an outbox, together with the server that has them: on Redis Cluster an outbox can go back to an earlier
  state although the ledger does not.

  KEYS[1] outbox
  ARGV[1] first entry id
  ARGV[2] maximum number of entries
  Returns { server id, last entry id that was assigned ("0-0" for none), entries }
]]
--@include server
local outbox = KEYS[1]
local last = '0-0'
local info = redis.pcall('XINFO', 'STREAM', outbox)
if not info.err then
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
return { serverId(), last, redis.call('XRANGE', outbox, ARGV[1], '+', 'COUNT', ARGV[2]) }
