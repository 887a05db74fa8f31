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
  ARGV[1] maximum value of the counter
  ARGV[2] digest of tool and arguments: the same call id with another digest is rejected
  ARGV[3] request (JSON): member, concurrency, forMs, limits
  ARGV[4] member of activeCalls
  ARGV[5] details that the sweep needs to end the call (JSON)
  ARGV[6] ms that the call is stored
  ARGV[7] timestamp of the event
  ARGV[8] fields of the event (JSON)
  ARGV[9] the user's channel
  ARGV[10] maximum length of the log
  ARGV[11] maximum age of an event, ms
  ARGV[12] seconds that an unused log keeps its log epoch
  ARGV[13] maximum size of the log, bytes
  ARGV[14] number of input requests of the call that have been answered, 0 for a new call
  ARGV[15] limit on new idempotency keys (JSON, see include/quotas.lua), "" for a call without one
  Returns { "begun", now, status... }, { "refused", now, index of the limit or 0, status... }, { "limited" },
          { "keys", now, uses, when the oldest leaves the window } for too many new idempotency keys,
          { "conflict" }, { "running", now, deadline }, { "done", now, outcome }, or
          { "forgotten" } for the answer to an input request that is no longer stored
]]
--@include streams
--@include events
--@include quotas
local call, activeCalls, quota, reservations = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[1]) then return { 'limited' } end

local options = { channel = ARGV[9], length = ARGV[10], maxAge = ARGV[11], stateSeconds = ARGV[12], maxBytes = ARGV[13] }
local log = openLog({ log = KEYS[6], logState = KEYS[7] }, options, redis.call('TIME'))

local known = redis.call('HMGET', call, 'digest', 'status', 'deadline', 'outcome', 'asked')
local answered, asked = tonumber(ARGV[14]), tonumber(known[5] or '0')
if answered > asked then return { 'forgotten' } end
if known[2] then
  if known[1] ~= ARGV[2] then return { 'conflict' } end
  if known[2] == 'running' then return { 'running', log.now, tonumber(known[3]) } end
  if known[2] == 'done' or answered < asked then return { 'done', log.now, known[4] } end
end

-- A call with an idempotency key is stored for a day, also if no quota limits its tool. New keys therefore have a limit
-- of their own.
local newKey = ARGV[15] ~= '' and not known[2] and cjson.decode(ARGV[15])
if newKey then
  local status = readLimits(quota, {}, { newKey }, log.now)
  if status[1] >= newKey.max then return { 'keys', log.now, unpack(status) } end
end

local request = cjson.decode(ARGV[3])
local allowed, second, third = reserve(quota, reservations, request, log.now)
if not allowed then return { 'refused', log.now, second, unpack(third) } end
if newKey then countUse(quota, newKey, log.now) end
local deadline = log.now + request.forMs
redis.call('HSET', call, 'digest', ARGV[2], 'status', 'running', 'deadline', deadline, 'details', ARGV[5])
redis.call('HDEL', call, 'outcome')
redis.call('PEXPIRE', call, ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', log.now)
redis.call('ZADD', KEYS[8], log.now + ARGV[6], string.match(ARGV[4], '%S+$'))
redis.call('PEXPIRE', KEYS[8], ARGV[6])
redis.call('ZADD', activeCalls, deadline, ARGV[4])
appendEvent(log, 'tool_executing', ARGV[7], ARGV[8])
closeLog(log)
return { 'begun', log.now, unpack(second) }
