--[[
  Counts messages of a user. A window begins with its first message.

  KEYS[1] message rate  messages of the current window
  ARGV[1] messages to add
  ARGV[2] duration of a new window, seconds
  Returns {messages of the window, its remaining milliseconds}
]]
redis.call('SET', KEYS[1], 0, 'EX', ARGV[2], 'NX')
local counted = redis.call('INCRBY', KEYS[1], ARGV[1])
local remaining = redis.call('PTTL', KEYS[1])
-- A counter without an expiry, which no version writes, would refuse its user forever.
if remaining < 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  remaining = ARGV[2] * 1000
end
return { counted, remaining }
