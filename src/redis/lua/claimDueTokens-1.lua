--[[
  Claims the sessions of a partition whose token is due for refresh. The script postpones each of them to the end of the
  claim, so that no other worker claims it meanwhile. If the worker dies, another one claims the session afterwards.

  KEYS[1] due  as in registerToken
  ARGV[1] now, ms, by the clock of the worker and not of Redis: the times in tokens are compared with that clock
  ARGV[2] end of the claim, ms
  ARGV[3] maximum number of sessions
  Returns the members
]]
local members = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, member in ipairs(members) do
  redis.call('ZADD', KEYS[1], ARGV[2], member)
end
return members
