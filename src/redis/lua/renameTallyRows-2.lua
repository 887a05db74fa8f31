--[[
  Renames rows of an hour's tally, adding their measures to a row that already has the new name.

  KEYS[1] tally    hash of the hour: row -> measures, see ingestUsage; its expiry does not change
  KEYS[2] erasure  hash of the erasure, see Erasures
  ARGV[1...] per row: name, new name
  Returns the number of rows moved
]]
-- A worker that resumes after a pause must not rename rows of later use by the same user.
if redis.call('HGET', KEYS[2], 'phase') ~= 'tallies' then return 0 end
local moved = 0
for i = 1, #ARGV, 2 do
  local measures = redis.call('HGET', KEYS[1], ARGV[i])
  if measures then
    local known, sums = {}, {}
    for number in string.gmatch(redis.call('HGET', KEYS[1], ARGV[i + 1]) or '', '%S+') do known[#known + 1] = tonumber(number) end
    for number in string.gmatch(measures, '%S+') do
      sums[#sums + 1] = string.format('%.0f', (known[#sums + 1] or 0) + tonumber(number))
    end
    redis.call('HSET', KEYS[1], ARGV[i + 1], table.concat(sums, ' '))
    redis.call('HDEL', KEYS[1], ARGV[i])
    moved = moved + 1
  end
end
if moved > 0 then redis.call('HINCRBY', KEYS[2], 'tally_rows', moved) end
return moved
