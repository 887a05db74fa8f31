-- Names the history that this Redis writes: another one after a restart (run_id) and after a promotion (master_replid),
-- when what was written to the Redis before last may not be here.
local function serverId()
  local info = redis.call('INFO', 'server', 'replication')
  return string.match(info, 'run_id:(%w+)') .. ':' .. string.match(info, 'master_replid:(%w+)')
end
