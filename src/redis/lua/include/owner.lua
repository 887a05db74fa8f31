--[[
  The owner of a run, for scripts that append its events. The run stores how many of its events are in the log, so that
  a repeated append is recognised.
  token: fencing token of the claim
  known: number of events of the run that the writer knows to be in the log before these
  count: number of events to append
  Returns "owned", "repeated", "fenced", "finished" or "behind"; and with the first two whether cancellation was
  requested (0 | 1).
]]
local function ownerOf(run, token, known, count)
  local stored = redis.call('HMGET', run, 'epoch', 'events', 'status', 'cancel')
  local epoch, status = stored[1], stored[3]
  if epoch ~= token then
    if not epoch or tonumber(epoch) < tonumber(token) then return 'behind' end
    return 'fenced'
  end
  local appended = tonumber(stored[2] or 0)
  if appended >= known + count then return 'repeated', tonumber(stored[4] or 0) end
  if status == 'completed' or status == 'failed' or status == 'cancelled' then return 'finished' end
  if appended < known then return 'behind' end
  if appended ~= known then return 'fenced' end
  return 'owned', tonumber(stored[4] or 0)
end

-- Returns the fields of the run after an append: how many of its events are in the log, and where the first one is, for
-- readers of this run only.
local function fieldsAfter(log, known, count)
  local events = string.format('%d', known + count)
  if known > 0 then return { 'events', events } end
  return { 'events', events, 'first_seq', string.format('%d', log.seq - count + 1) }
end
