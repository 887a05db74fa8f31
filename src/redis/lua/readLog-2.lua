--[[
  A page of a user's event log, with the log's head as of the same moment.
  A node that has seen more than the log holds, or another event at the place where it stands, proves that the log was lost (a fail-over to a replica that lagged, a
  restart from an older file): the log then gets a new epoch, so that no two events share a `seq` within one. A client's
  word is no such proof: it only gets to read nothing.

  KEYS[1] log       stream of events
  KEYS[2] logState  hash: epoch, seq
  ARGV[1] epoch the reader knows, "" for none
  ARGV[2] after: the last seq the reader has seen
  ARGV[3] greatest number of entries
  ARGV[4] seconds that an unused log keeps its epoch
  ARGV[5] 1 when the reader is a node that delivered up to `after` itself, 0 when it has that from a client
  ARGV[6] timestamp of the event that the node delivered as `after`, "" when it knows none
  Returns { epoch, seq, oldest seq that can be read, entries }; no entries when the epoch is another one
]]
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
  epoch = string.format('epoch_%x%05x', time[1], time[2])
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
