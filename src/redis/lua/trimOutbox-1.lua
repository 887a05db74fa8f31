--[[
  Removes ingested entries, unless the outbox has moved to another server since they were read: there, entries that
  were not ingested can have the same ids.

  KEYS[1] outbox
  ARGV[1] id of the server from which the entries were read
  ARGV[2] smallest entry id that stays
  Returns 1 when trimmed, 0 for another server
]]
--@include server
if serverId() ~= ARGV[1] then return 0 end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
return 1
