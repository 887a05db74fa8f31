--[[
  Uses of what is limited, in sliding windows, and calls that are under way.

  The hash `quota` has a field per limit, "<bucket> <uses> <bucket> <uses> ...", oldest first: a use counts until its
  whole bucket is older than the window, so that no window of that length ever holds more than the limit. At most
  window / bucket + 1 buckets are in a field; those that have left are dropped by the next write.
  The sorted set `reservations` has a member per call under way, "<call id> <tool> <permission>", scored by the time at
  which the call counts as dead: a reservation is never counted after that, whoever died.
  A limit is { field, scope ("tool:<name>" or "permission:<name>"), windowMs, bucketMs, max }.
]]
local function usesOf(packed, limit, now)
  local uses, buckets, first = 0, {}, math.floor((now - limit.windowMs) / limit.bucketMs)
  for bucket, count in string.gmatch(packed or '', '(%d+) (%d+)') do
    bucket, count = tonumber(bucket), tonumber(count)
    if bucket >= first then
      uses = uses + count
      buckets[#buckets + 1] = { bucket, count }
    end
  end
  return uses, buckets
end

-- Calls under way by scope, and all of them under '', the one that asks excepted. Writes nothing: see `reserve`.
local function inFlight(reservations, member, now)
  local calls = { [''] = 0 }
  for _, other in ipairs(redis.call('ZRANGE', reservations, '(' .. now, '+inf', 'BYSCORE')) do
    if other ~= member then
      local tool, permission = string.match(other, ' (%S+) (%S+)$')
      for _, scope in ipairs({ '', 'tool:' .. tool, 'permission:' .. permission }) do
        calls[scope] = (calls[scope] or 0) + 1
      end
    end
  end
  return calls
end

-- For each limit the uses, calls under way included, and when the oldest leaves its window, ms; 0 when none will.
local function readLimits(quota, calls, limits, now)
  local status = {}
  for i, limit in ipairs(limits) do
    local uses, buckets = usesOf(redis.call('HGET', quota, limit.field), limit, now)
    local oldest = buckets[1]
    status[2 * i - 1] = uses + (calls[limit.scope] or 0)
    status[2 * i] = oldest and (oldest[1] + 1) * limit.bucketMs + limit.windowMs or 0
  end
  return status
end

--[[
  Takes a place for a call unless a limit is reached. A call that has one already gets more time for it.
  request: { member, concurrency, forMs, limits }
  Returns true and the status of the limits, the call included; or false, the number of the limit that is reached (0 for
  too many at once) and the status. Of several, the one named is that with the longest window.
  The ZADD is the first write: a Redis whose memory is full refuses a script at the first write that needs memory, and lets
  one that has written already go on. So nothing is begun there, and nothing is half done.
]]
local function reserve(quota, reservations, request, now)
  local calls = inFlight(reservations, request.member, now)
  local status = readLimits(quota, calls, request.limits, now)
  local reached
  if calls[''] >= request.concurrency then reached = 0 end
  for i, limit in ipairs(request.limits) do
    local over = status[2 * i - 1] >= limit.max
    if over and (not reached or reached == 0 or limit.windowMs > request.limits[reached].windowMs) then reached = i end
  end
  if reached then
    local deadline = tonumber(redis.call('ZSCORE', reservations, request.member) or '0')
    if deadline <= now then return false, reached, status end
  end
  redis.call('ZADD', reservations, now + request.forMs, request.member)
  redis.call('ZREMRANGEBYSCORE', reservations, '-inf', now)
  redis.call('PEXPIRE', reservations, 2 * request.forMs)
  for i = 1, #request.limits do status[2 * i - 1] = status[2 * i - 1] + 1 end
  return true, status
end

--[[
  Gives the place of a call back: before anything else that its end writes. Removing is allowed when the memory is full,
  and what a script writes after that too: what was executed is recorded, whatever else cannot be written any more.
]]
local function releaseReservation(reservations, member)
  redis.call('ZREM', reservations, member)
end

-- Counts one use of a limit.
local function countUse(quota, limit, now)
  local _, buckets = usesOf(redis.call('HGET', quota, limit.field), limit, now)
  local current, last = math.floor(now / limit.bucketMs), buckets[#buckets]
  if last and last[1] >= current then
    last[2] = last[2] + 1
  else
    buckets[#buckets + 1] = { current, 1 }
  end
  local packed = {}
  for i, bucket in ipairs(buckets) do packed[i] = string.format('%d %d', bucket[1], bucket[2]) end
  redis.call('HSET', quota, limit.field, table.concat(packed, ' '))
  redis.call('PEXPIRE', quota, 32 * 24 * 3600 * 1000)
end

-- Counts a call that ran. commit: { member, limits, day, month, units }; without day and month what costs nothing
local function commitUse(quota, commit, now)
  for _, limit in ipairs(commit.limits) do countUse(quota, limit, now) end
  -- What a calendar day and month cost, "<period> <calls> <units>"; the next period begins anew.
  for _, name in ipairs({ 'day', 'month' }) do
    local packed = redis.call('HGET', quota, name)
    local period, calls, units = string.match(packed or '', '^(%S+) (%d+) (%d+)$')
    local current = commit[name]
    if current and (not period or period < current) then period, calls, units = current, 0, 0 end
    if current and period == current then
      redis.call('HSET', quota, name, string.format('%s %d %d', period, calls + 1, units + commit.units))
    end
  end
  redis.call('PEXPIRE', quota, 32 * 24 * 3600 * 1000)
end
