--[[
  Stores a journal entry of a run without an event, if the writer still owns the run.

  KEYS[1] run  hash of the run
  ARGV[1] fencing token of the claim
  ARGV[2] field
  ARGV[3] value
  Returns "stored" | "fenced" | "finished", or "behind" when Redis lost the run or the claim
]]
local owned = redis.call('HMGET', KEYS[1], 'epoch', 'status')
if not owned[1] or tonumber(owned[1]) < tonumber(ARGV[1]) then return 'behind' end
if owned[1] ~= ARGV[1] then return 'fenced' end
if owned[2] == 'completed' or owned[2] == 'failed' or owned[2] == 'cancelled' then return 'finished' end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 'stored'
