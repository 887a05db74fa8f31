-- Identifies the history that this Redis writes. It changes with a restart (run_id) and with a promotion
-- (master_replid), after which writes to the previous Redis may be missing here.
local function serverId()
  local info = redis.call('INFO', 'server', 'replication')
  return string.match(info, 'run_id:(%w+)') .. ':' .. string.match(info, 'master_replid:(%w+)')
end
