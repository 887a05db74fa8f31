--[[
  Reads the state of a run. The answer of a completed run is the message that the run added to its thread.

  KEYS[1] run  hash of the run
  ARGV[1] run id
  ARGV[2] key prefix of the user's threads
  ARGV[3] maximum number of messages of the thread that are searched, newest first
  Returns { "unknown" } or { status, request id, thread id, ms when it ended or "", the message of the answer (JSON) or
          "", name of the agent, input requests ("<id> <1 without an answer, 0 with one> <ms of its expiry> <JSON>"), ... }
]]
local fields = redis.call('HMGET', KEYS[1], 'status', 'request_id', 'thread_id', 'ended_at', 'agent')
local status, requestId, threadId, endedAt, agent = unpack(fields)
if not status then return { 'unknown' } end
local answer = ''
if status == 'completed' then
  -- In a JSON string the quotes are escaped, so the text of a message cannot match.
  local id = '"run_id":"' .. ARGV[1] .. '"'
  for _, entry in ipairs(redis.call('XREVRANGE', ARGV[2] .. threadId, '+', '-', 'COUNT', ARGV[3])) do
    local message = entry[2][2]
    if string.find(message, '{"role":"assistant"', 1, true) == 1 and string.find(message, id, 1, true) then
      answer = message
      break
    end
  end
end
local result = { status, requestId, threadId, endedAt or '', answer, agent }
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local id = string.match(field, '^input:(.+)$')
  if id then
    local isOpen = 1 - redis.call('HEXISTS', KEYS[1], 'answer:' .. id)
    result[#result + 1] = id .. ' ' .. isOpen .. ' ' .. redis.call('HGET', KEYS[1], field)
  end
end
return result
