--[[
  Removes a connection from its session. With the last connection it also deletes the token and ends the refreshes.

  KEYS[1] due, KEYS[2] session, KEYS[3] connections: as in registerToken
  ARGV[1] member of `due`
  ARGV[2] connection id
  Returns the number of remaining connections of the session
]]
--@include sessions
return leaveSession({ due = KEYS[1], session = KEYS[2], connections = KEYS[3] }, { member = ARGV[1], connection = ARGV[2] })
