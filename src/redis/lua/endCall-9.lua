--[[
  Ends a tool call outside a run: its `tool_completed`, its usage record, its settlement and its outcome, in one step and
  once, whoever comes first: the node that ran it, or the sweep after the call counted as dead. One that asks its caller for
  something ends in the same way, and is remembered as one that can begin again.

  KEYS[1] call          hash of the call
  KEYS[2] activeCalls   sorted set of calls that have not ended
  KEYS[3] quota         hash of the user's uses, see include/quotas.lua
  KEYS[4] reservations  sorted set of the user's calls under way
  KEYS[5] log           stream of events
  KEYS[6] logState      hash: epoch, seq
  KEYS[7] outbox        stream of usage records (field r, with the trace they are of in t)
  KEYS[8] recentUsage   list of the user's usage records, newest first
  KEYS[9] calls         sorted set: call id -> when the hash of the call expires, ms
  ARGV[1] settlement (JSON); "" to give the place back without counting the call
  ARGV[2] member of reservations
  ARGV[3] member of activeCalls
  ARGV[4] outcome to remember (JSON), "" for none
  ARGV[5] ms that the call is remembered from here on; "" as it was
  ARGV[6] usage record (JSON), "" for a call that was not executed
  ARGV[7] timestamp of the event
  ARGV[8] fields of the event (JSON)
  ARGV[9] the user's channel
  ARGV[10] greatest length of the log
  ARGV[11] greatest age of an event, ms
  ARGV[12] seconds that an unused log keeps its epoch
  ARGV[13] greatest size of the log, bytes
  ARGV[14] how many of the user's usage records to keep for the user's own tools
  ARGV[15] trace of the usage record, "" for none
  ARGV[16] questions of the call that had been answered when it began
  ARGV[17] how many must be answered for it to begin again; "" for a call that is done
  Returns { "ended" }, { "over", outcome or "" } when it had been ended before, or { "stale" } when it has begun anew since
]]
--@include streams
--@include events
--@include quotas
local call, reservations = KEYS[1], KEYS[4]
local known = redis.call('HMGET', call, 'status', 'outcome', 'asked')
if known[1] == 'running' and known[3] and known[3] ~= ARGV[16] then
  -- This end was taken already, with its answer lost on the way: the call has begun anew since.
  return { 'stale' }
elseif known[1] == 'done' or known[1] == 'asked' then
  redis.call('ZREM', KEYS[2], ARGV[3])
  return { 'over', known[2] or '' }
end

local options = { channel = ARGV[9], length = ARGV[10], maxAge = ARGV[11], stateSeconds = ARGV[12], maxBytes = ARGV[13] }
local log = openLog({ log = KEYS[5], logState = KEYS[6] }, options, redis.call('TIME'))
releaseReservation(reservations, ARGV[2])
appendEvent(log, 'tool_completed', ARGV[7], ARGV[8])
closeLog(log)
if ARGV[6] ~= '' then writeRecord(KEYS[7], KEYS[8], ARGV[6], ARGV[15], ARGV[14], 30 * tonumber(ARGV[11])) end
if ARGV[17] == '' then
  redis.call('HSET', call, 'status', 'done')
else
  redis.call('HSET', call, 'status', 'asked', 'asked', ARGV[17])
end
if ARGV[4] ~= '' then redis.call('HSET', call, 'outcome', ARGV[4]) end
redis.call('HDEL', call, 'details')
if ARGV[5] ~= '' or redis.call('PTTL', call) < 0 then
  redis.call('PEXPIRE', call, ARGV[5] ~= '' and ARGV[5] or ARGV[11])
end
redis.call('ZADD', KEYS[9], log.now + redis.call('PTTL', call), string.match(ARGV[2], '^%S+'))
if redis.call('PTTL', KEYS[9]) < 0 then redis.call('PEXPIRE', KEYS[9], ARGV[11]) end
if ARGV[1] ~= '' then commitUse(KEYS[3], cjson.decode(ARGV[1]), log.now) end
redis.call('ZREM', KEYS[2], ARGV[3])
return { 'ended' }
