--[[
  Begins a tool call outside a run and appends its `tool_executing`: within the message limit, once per call id, and
  within the user's quotas. The rate limiter wrote the message counter just before, on the same connection.
  A call that requested input from its caller begins again, once, when the answer to its last input request arrives. An
  answer to an earlier input request receives the outcome of that round.

  KEYS[1] messageRate   counter of the user's messages in the current window
  KEYS[2] call          hash of the call: digest, status (running | asked | done), deadline, details, outcome, and
                        asked: number of input requests that must be answered before it begins again
  KEYS[3] activeCalls   sorted set: "<user id> <call id>" -> when the call counts as dead, ms
  KEYS[4] quota         hash of the user's counted uses, see include/quotas.lua
  KEYS[5] reservations  sorted set of the user's reservations, one per call in flight
  KEYS[6] log           stream of events
  KEYS[7] logState      hash: epoch, seq
  KEYS[8] calls         sorted set: call id -> when the hash of the call expires, ms
  ARGV[1...7] the log, see include/events.lua
  ARGV[8] maximum value of the counter
  ARGV[9] digest of tool and arguments: the same call id with another digest is rejected
  ARGV[10] request (JSON): member, concurrency, forMs, limits
  ARGV[11] member of activeCalls
  ARGV[12] details that the sweep needs to end the call (JSON)
  ARGV[13] ms that the call is stored
  ARGV[14] timestamp of the event
  ARGV[15] fields of the event (JSON)
  ARGV[16] number of input requests of the call that have been answered, 0 for a new call
  ARGV[17] limit on new idempotency keys (JSON, see include/quotas.lua), "" for a call without one
  Returns { "begun", now, status... }, { "refused", now, index of the limit or 0, status... }, { "limited" },
          { "keys", now, uses, when the oldest leaves the window } for too many new idempotency keys,
          { "conflict" }, { "running", now, deadline }, { "done", now, outcome }, or
          { "forgotten" } for the answer to an input request that is no longer stored
]]
--@include time
--@include streams
--@include events
--@include quotas
local call, activeCalls, quota, reservations = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[8]) then return { 'limited' } end

local log = openLog(KEYS[6], KEYS[7], redis.call('TIME'))

local known = redis.call('HMGET', call, 'digest', 'status', 'deadline', 'outcome', 'asked')
local answered, asked = tonumber(ARGV[16]), tonumber(known[5] or '0')
if answered > asked then return { 'forgotten' } end
if known[2] then
  if known[1] ~= ARGV[9] then return { 'conflict' } end
  if known[2] == 'running' then return { 'running', log.now, tonumber(known[3]) } end
  if known[2] == 'done' or answered < asked then return { 'done', log.now, known[4] } end
end

-- A call with an idempotency key is stored for a day, also if no quota limits its tool. New keys therefore have a limit
-- of their own.
local newKey = ARGV[17] ~= '' and not known[2] and cjson.decode(ARGV[17])
local keysCounted
if newKey then
  local status, stored = readLimits(quota, {}, { newKey }, log.now)
  keysCounted = stored[1]
  if status[1] >= newKey[MAX] then return { 'keys', log.now, unpack(status) } end
end

local request = cjson.decode(ARGV[10])
local allowed, second, third = reserve(quota, reservations, request, log.now)
if not allowed then return { 'refused', log.now, second, unpack(third) } end
if newKey then countUse(quota, newKey, keysCounted, log.now) end
local deadline = log.now + request.forMs
redis.call('HSET', call, 'digest', ARGV[9], 'status', 'running', 'deadline', deadline, 'details', ARGV[12])
redis.call('HDEL', call, 'outcome')
redis.call('PEXPIRE', call, ARGV[13])
redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', log.now)
redis.call('ZADD', KEYS[8], log.now + ARGV[13], string.match(ARGV[11], '%S+$'))
redis.call('PEXPIRE', KEYS[8], ARGV[13])
redis.call('ZADD', activeCalls, deadline, ARGV[11])
appendEvent(log, 'tool_executing', ARGV[14], string.sub(ARGV[15], 2))
closeLog(log)
return { 'begun', log.now, unpack(second) }
