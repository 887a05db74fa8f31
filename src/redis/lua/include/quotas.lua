--[[
  Counted uses of limits in sliding windows, and reservations of calls in flight.

  The hash `quota` has a field per limit, "<bucket> <uses> <bucket> <uses> ...", oldest first. A use counts until its
  whole bucket is older than the window, so no window of that length ever contains more uses than the limit. A field has
  at most window / bucket + 1 buckets; the next write drops expired ones.
  The sorted set `reservations` has a member per call in flight, "<call id> <tool> <permission>", scored by the time at
  which the call counts as dead. An expired reservation is never counted, so a crashed process cannot leak quota.
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

-- Returns the calls in flight per scope, and their total under ''. The call `member` itself is not counted. Writes
-- nothing: see `reserve`.
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

-- Returns per limit the uses, including calls in flight, and the time (ms) when the oldest use leaves the window; 0 if
-- there is none.
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
  Reserves a call unless a limit is reached. An existing reservation of the call is extended.
  request: { member, concurrency, forMs, limits }
  Returns true and the status of the limits, including the call; or false, the index of the reached limit (0 for too
  many calls in flight) and the status. If several limits are reached, the one with the longest window is returned.
  The ZADD is the first write. A Redis without free memory rejects a script at its first write that needs memory, but
  lets a script that has already written continue. So a rejected call has written nothing.
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
  Releases the reservation of a call. It must be the first write of the script that ends the call: Redis allows a
  removal without free memory, and then also the later writes of the script. So an executed call is always recorded.
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

-- Counts an executed call. commit: { member, limits, day, month, units }; without day and month for a call without a
-- cost.
local function commitUse(quota, commit, now)
  for _, limit in ipairs(commit.limits) do countUse(quota, limit, now) end
  -- The cost per calendar day and month, "<period> <calls> <units>"; a new period starts at zero.
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
