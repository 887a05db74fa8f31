--[[
  Ends a tool call outside a run. One step appends its `tool_completed`, writes its usage record, commits or releases
  its reservation and stores its outcome. It takes effect once, although both the node that ran the call and, after the
  call counts as dead, the sweep may send it. A call that requests input from its caller ends in the same way, and is
  stored as one that can begin again.

  KEYS[1] call          hash of the call
  KEYS[2] activeCalls   sorted set of calls that have not ended
  KEYS[3] quota         hash of the user's counted uses, see include/quotas.lua
  KEYS[4] reservations  sorted set of the user's reservations, one per call in flight
  KEYS[5] log           stream of events
  KEYS[6] logState      hash: epoch, seq
  KEYS[7] outbox        stream of usage records (field r, with their trace in t)
  KEYS[8] recentUsage   list of the user's usage records, newest first
  KEYS[9] calls         sorted set: call id -> when the hash of the call expires, ms
  ARGV[1...7] the log, see include/events.lua
  ARGV[8] commit (JSON); "" to release the reservation without counting the call
  ARGV[9] member of reservations
  ARGV[10] member of activeCalls
  ARGV[11] outcome to store (JSON), "" for none
  ARGV[12] ms that the call is stored from now on; "" to keep its expiry
  ARGV[13] usage record (JSON), "" for a call that was not executed
  ARGV[14] timestamp of the event
  ARGV[15] fields of the event (JSON)
  ARGV[16] number of input requests of the call that had been answered when it began
  ARGV[17] number of input requests to be answered before it begins again; "" for a call that is done
  Returns { "ended" }, { "over", outcome or "" } when it had ended before, or { "stale" } when it has begun again since
]]
--@include time
--@include streams
--@include events
--@include quotas
local call, reservations = KEYS[1], KEYS[4]
local known = redis.call('HMGET', call, 'status', 'outcome', 'asked')
if known[1] == 'running' and known[3] and known[3] ~= ARGV[16] then
  -- An earlier attempt already ended this round and its reply was lost. The call has begun again since.
  return { 'stale' }
elseif known[1] == 'done' or known[1] == 'asked' then
  redis.call('ZREM', KEYS[2], ARGV[10])
  return { 'over', known[2] or '' }
end

local log = openLog(KEYS[5], KEYS[6], redis.call('TIME'))
-- The release of a reservation must be the first write of the script that ends the call: Redis allows a removal without
-- free memory, and then also the later writes of the script. So an executed call is always recorded.
redis.call('ZREM', reservations, ARGV[9])
appendEvent(log, 'tool_completed', ARGV[14], string.sub(ARGV[15], 2))
closeLog(log)
if ARGV[13] ~= '' then writeRecord(log, KEYS[7], KEYS[8], ARGV[13]) end
if ARGV[17] == '' then
  redis.call('HSET', call, 'status', 'done')
else
  redis.call('HSET', call, 'status', 'asked', 'asked', ARGV[17])
end
if ARGV[11] ~= '' then redis.call('HSET', call, 'outcome', ARGV[11]) end
redis.call('HDEL', call, 'details')
if ARGV[12] ~= '' or redis.call('PTTL', call) < 0 then
  redis.call('PEXPIRE', call, ARGV[12] ~= '' and ARGV[12] or ARGV[3])
end
redis.call('ZADD', KEYS[9], log.now + redis.call('PTTL', call), string.match(ARGV[9], '^%S+'))
if redis.call('PTTL', KEYS[9]) < 0 then redis.call('PEXPIRE', KEYS[9], ARGV[3]) end
if ARGV[8] ~= '' then commitUse(KEYS[3], cjson.decode(ARGV[8]), log.now) end
redis.call('ZREM', KEYS[2], ARGV[10])
return { 'ended' }
