--[[
  Closes the open revision of a window with the document that the writer computed from its records. It does nothing if
  the revision has changed since the writer read it. A closed revision is never written again.

  KEYS[1] window  hash of the hour, see ingestUsage
  KEYS[2] open    sorted set of hours with an open revision, scored by the time (ms) at which it closes
  ARGV[1] hour
  ARGV[2] number of closed revisions as the writer knows it
  ARGV[3] last sequence of the open revision as the writer knows it
  ARGV[4] totals of the open revision as the writer knows them
  ARGV[5] the closed revision (JSON)
  Returns 1 when closed, 0 when the writer must read the window again
]]
local window, open = KEYS[1], KEYS[2]
local known = redis.call('HMGET', window, 'closed', 'last', 'totals')
if (known[1] or '0') ~= ARGV[2] or known[2] ~= ARGV[3] or known[3] ~= ARGV[4] then return 0 end
local revision = string.format('%.0f', ARGV[2] + 1)
redis.call('HSET', window, 'closed', revision, 'r' .. revision, ARGV[5])
redis.call('HDEL', window, 'first', 'last', 'count', 'totals')
redis.call('ZREM', open, ARGV[1])
return 1
