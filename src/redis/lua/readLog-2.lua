--[[
  Reads a page of a user's event log, with the head of the log at the same moment.
  A node proves that the log lost events if it delivered more events than the log holds, or another event at its
  position. Causes are a failover to a lagging replica and a restart from an older file. The log then gets a new log
  epoch, so that no two events of one epoch share a `seq`. A position that a client sent proves nothing: it only yields
  an empty page.

  KEYS[1] log       stream of events
  KEYS[2] logState  hash: epoch, seq
  ARGV[1] log epoch that the reader knows, "" for none
  ARGV[2] after: the last seq that the reader received
  ARGV[3] maximum number of entries
  ARGV[4] seconds that an unused log keeps its log epoch
  ARGV[5] 1 when the reader is a node that delivered up to `after` itself, 0 when a client sent the position
  ARGV[6] timestamp of the event that the node delivered as `after`, "" when it delivered none
  Returns { log epoch, seq, oldest seq in the log, entries }; no entries when the log has another epoch
]]
--@include time
local log, logState = KEYS[1], KEYS[2]
local known, after = ARGV[1], tonumber(ARGV[2])
local state = redis.call('HMGET', logState, 'epoch', 'seq')
local epoch, seq = state[1], tonumber(state[2] or '0')
local lost = not epoch
if known == epoch and ARGV[5] == '1' then
  local there = ARGV[6] ~= '' and redis.call('XRANGE', log, string.format('%d-0', after), string.format('%d-0', after))[1]
  lost = after > seq or (there and there[2][4] ~= ARGV[6])
end
if lost then
  local time = redis.call('TIME')
  epoch = newEpoch(time)
  redis.call('HSET', logState, 'epoch', epoch, 'seq', seq)
  redis.call('EXPIRE', logState, ARGV[4])
end
local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local oldest = first and tonumber(string.match(first[1], '^%d+')) or seq + 1
local entries = {}
if known == epoch and after < seq then
  entries = redis.call('XRANGE', log, '(' .. string.format('%d', after) .. '-0', '+', 'COUNT', ARGV[3])
end
return { epoch, seq, oldest, entries }
