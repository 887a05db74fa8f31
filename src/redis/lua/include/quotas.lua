--[[
  Counted uses of limits in sliding windows, and reservations of calls in flight.

  The hash `quota` has a field per limit, "<bucket> <uses> <bucket> <uses> ...", oldest first. A use counts until its
  whole bucket is older than the window, so no window of that length ever contains more uses than the limit. A field has
  at most window / bucket + 1 buckets; the next write drops expired ones.
  The sorted set `reservations` has a member per call in flight, "<call id> <tool> <permission>", scored by the time at
  which the call counts as dead. An expired reservation is never counted, so a crashed process cannot leak quota.
  A limit is an array, because Lua decodes the names of an object at the cost of its values: the field, the scope
  ("tool:<name>" or "permission:<name>"), the maximum, and the ms of the window and of a bucket.
]]
local FIELD, SCOPE, MAX, WINDOW_MS, BUCKET_MS = 1, 2, 3, 4, 5

local function usesOf(packed, limit, now)
  local uses, buckets, first = 0, {}, math.floor((now - limit[WINDOW_MS]) / limit[BUCKET_MS])
  if not packed then return uses, buckets end
  for bucket, count in string.gmatch(packed, '(%d+) (%d+)') do
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
  for _, other in ipairs(redis.call('ZRANGE', reservations, string.format('(%d', now), '+inf', 'BYSCORE')) do
    if other ~= member then
      local tool, permission = string.match(other, ' (%S+) (%S+)$')
      for _, scope in ipairs({ '', 'tool:' .. tool, 'permission:' .. permission }) do
        calls[scope] = (calls[scope] or 0) + 1
      end
    end
  end
  return calls
end

-- Returns the fields of some limits, and then `more`, in one read.
local function readFields(quota, limits, more)
  local fields = {}
  for i, limit in ipairs(limits) do fields[i] = limit[FIELD] end
  for _, field in ipairs(more) do fields[#fields + 1] = field end
  return #fields > 0 and redis.call('HMGET', quota, unpack(fields)) or {}
end

-- Returns per limit the uses, including calls in flight, and the time (ms) when the oldest use leaves the window; 0 if
-- there is none. Also returns the fields that it read.
local function readLimits(quota, calls, limits, now)
  local status = {}
  local stored = readFields(quota, limits, {})
  for i, limit in ipairs(limits) do
    local uses, buckets = usesOf(stored[i], limit, now)
    local oldest = buckets[1]
    status[2 * i - 1] = uses + (calls[limit[SCOPE]] or 0)
    status[2 * i] = oldest and (oldest[1] + 1) * limit[BUCKET_MS] + limit[WINDOW_MS] or 0
  end
  return status, stored
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
    local over = status[2 * i - 1] >= limit[MAX]
    if over and (not reached or reached == 0 or limit[WINDOW_MS] > request.limits[reached][WINDOW_MS]) then reached = i end
  end
  if reached then
    local deadline = tonumber(redis.call('ZSCORE', reservations, request.member) or '0')
    if deadline <= now then return false, reached, status end
  end
  redis.call('ZADD', reservations, string.format('%d', now + request.forMs), request.member)
  -- Without other calls in flight, the set expires before it grows.
  if calls[''] > 0 then redis.call('ZREMRANGEBYSCORE', reservations, '-inf', now) end
  redis.call('PEXPIRE', reservations, string.format('%d', 2 * request.forMs))
  for i = 1, #request.limits do status[2 * i - 1] = status[2 * i - 1] + 1 end
  return true, status
end

-- Counts one use in the field of a limit. Returns the new field, and whether the use began a bucket.
local function counted(packed, limit, now)
  local _, buckets = usesOf(packed, limit, now)
  local current, last = math.floor(now / limit[BUCKET_MS]), buckets[#buckets]
  local begins = not last or last[1] < current
  if begins then
    buckets[#buckets + 1] = { current, 1 }
  else
    last[2] = last[2] + 1
  end
  local fields = {}
  for i, bucket in ipairs(buckets) do fields[i] = string.format('%d %d', bucket[1], bucket[2]) end
  return table.concat(fields, ' '), begins
end

-- Writes fields of `quota`. The expiry is set with each new bucket and period only, because no bucket is longer than an
-- hour.
local function writeUses(quota, changed, begins)
  if #changed > 0 then redis.call('HSET', quota, unpack(changed)) end
  if begins then redis.call('PEXPIRE', quota, 32 * 24 * 3600 * 1000) end
end

-- Counts one use of a limit whose field has been read. Returns whether the use began a bucket.
local function countUse(quota, limit, packed, now)
  local field, begins = counted(packed, limit, now)
  writeUses(quota, { limit[FIELD], field }, begins)
  return begins
end

-- Counts an executed call. commit: { member, limits, day, month, units }; without day and month for a call without a
-- cost.
local function commitUse(quota, commit, now)
  local periods = commit.day and { 'day', 'month' } or {}
  local stored = readFields(quota, commit.limits, periods)
  local changed, renews = {}, false
  for i, limit in ipairs(commit.limits) do
    local field, begins = counted(stored[i], limit, now)
    changed[#changed + 1], changed[#changed + 2] = limit[FIELD], field
    renews = renews or begins
  end
  -- The cost per calendar day and month, "<period> <calls> <units>"; a new period starts at zero.
  for i, name in ipairs(periods) do
    local period, calls, units = string.match(stored[#commit.limits + i] or '', '^(%S+) (%d+) (%d+)$')
    local current = commit[name]
    if not period or period < current then period, calls, units, renews = current, 0, 0, true end
    if period == current then
      changed[#changed + 1], changed[#changed + 2] = name, string.format('%s %d %d', period, calls + 1, units + commit.units)
    end
  end
  writeUses(quota, changed, renews)
end
