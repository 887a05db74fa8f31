--[[
  Lists the live nodes with the details that each last reported.

  KEYS[1] nodes    sorted set: node id -> expiry of its lease, ms
  KEYS[2] details  hash: node id -> JSON
  ARGV[1] maximum number of nodes
  Returns per node { id, details }
]]
--@include time
local now = millis(redis.call('TIME'))
local result = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[1])) do
  result[#result + 1] = { id, redis.call('HGET', KEYS[2], id) or '{}' }
end
return result
