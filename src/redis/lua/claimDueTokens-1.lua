--[[
  Takes the sessions of a partition whose token is to be refreshed. Each is put off until the claim ends, so that no
  other worker takes it meanwhile, and one whose worker died is taken again.

  KEYS[1] due  as in registerToken
  ARGV[1] now, ms: the clock that tokens' own times are compared with, not Redis's
  ARGV[2] end of the claim, ms
  ARGV[3] how many at most
  Returns the members
]]
local members = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, member in ipairs(members) do
  redis.call('ZADD', KEYS[1], ARGV[2], member)
end
return members
