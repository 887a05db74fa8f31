--[[
  Finds the partitions whose sorted set has a member that is due. Single servers only: the keys are in different slots.

  KEYS     the sorted set of each partition, scored by time, ms
  ARGV[1]  the latest time that is due, ms
  Returns the numbers of the partitions, from 0
]]
local partitions = {}
for partition, key in ipairs(KEYS) do
  if #redis.call('ZRANGE', key, '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, 1) > 0 then
    partitions[#partitions + 1] = partition - 1
  end
end
return partitions
