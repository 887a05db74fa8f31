--[[
  Stores the answer to an input request of a run, once, and appends the event that says so. A run that waits is queued
  again; it then needs a job. The event does not count as one of the run's own, because the worker may append at the
  same time.

  KEYS[1] log          the user's log, see include/events.lua
  KEYS[2] logState     its state
  KEYS[3] run          hash of the run
  KEYS[4] activeRuns   sorted set: "<user id> <run id>" -> when it must have ended, ms
  KEYS[5] runsInFlight sorted set of the user's runs that have not ended
  ARGV[1...7] the log, see include/events.lua
  ARGV[8] member of activeRuns
  ARGV[9] id of the input request
  ARGV[10] answer (JSON)
  ARGV[11] 1 for an answer that says that the request has expired
  ARGV[12] type of the event
  ARGV[13] its timestamp
  ARGV[14] its fields (JSON)
  Returns { "answered", "queued" | "running" }; { "repeated", the same } for the same answer again; { "conflict" } for
          another answer; { "expired" } | { "pending" } when the answer or its expiry comes at the wrong time;
          { "missing" } without such a request; or { "finished" }
]]
--@include time
--@include streams
--@include events
--@include waiting
local run, id, answer = KEYS[3], ARGV[9], ARGV[10]
local stored = redis.call('HMGET', run, 'status', 'input:' .. id, 'answer:' .. id)
local status, request, given = stored[1], stored[2], stored[3]
if status == 'completed' or status == 'failed' or status == 'cancelled' then return { 'finished' } end
if not request then return { 'missing' } end
if given then
  if given ~= answer then return { string.find(given, '{"action":"expired"', 1, true) == 1 and 'expired' or 'conflict' } end
  return { 'repeated', status == 'queued' and 'queued' or 'running' }
end
local time = redis.call('TIME')
local now = millis(time)
-- An input request is stored as "<time of its expiry, ms> <JSON>".
local isExpired = now >= tonumber(string.match(request, '^%d+'))
if isExpired ~= (ARGV[11] == '1') then return { isExpired and 'expired' or 'pending' } end

redis.call('HSET', run, 'answer:' .. id, answer)
local log = openLog(KEYS[1], KEYS[2], time)
appendEvent(log, ARGV[12], ARGV[13], string.sub(ARGV[14], 2))
closeLog(log)
local isQueued = endWait(run, { activeRuns = KEYS[4], runsInFlight = KEYS[5] }, ARGV[8], now) == 1
return { 'answered', isQueued and 'queued' or 'running' }
