-- Returns the reply of TIME in milliseconds since the epoch.
local function millis(time)
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Identifies a history of an event log: one that begins after a loss begins at another time.
local function newEpoch(time)
  return string.format('epoch_%x%05x', time[1], time[2])
end
