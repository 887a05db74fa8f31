--[[
  Takes the periodic tasks that are due for one worker. A taken task is due again after its period, whatever becomes of
  it: if its worker dies, another one takes it then.

  KEYS[1] tasks  hash: name of a task -> the time at which it is due, ms
  ARGV    name and period in ms of each task that the worker can run now
  Returns the ms until the next of these tasks is due, then the names of those that the worker must run
]]
--@include time
local now = millis(redis.call('TIME'))
local names = {}
for i = 1, #ARGV, 2 do
  names[#names + 1] = ARGV[i]
end
local due = redis.call('HMGET', KEYS[1], unpack(names))
local wait = math.huge
local taken, times = {}, {}
for i, name in ipairs(names) do
  local period = tonumber(ARGV[2 * i])
  local at = tonumber(due[i] or 0)
  -- A time that is later than a period away was written before the clock of Redis went back.
  if at <= now or at > now + period then
    at = now + period
    taken[#taken + 1] = name
    times[#times + 1] = name
    times[#times + 1] = at
  end
  wait = math.min(wait, at - now)
end
if #times > 0 then
  redis.call('HSET', KEYS[1], unpack(times))
end
return { wait, unpack(taken) }
