--[[
  Stores the latest token of a session for as long as the session has a live connection, and schedules its refresh. A
  token that expires later than the stored one is published to the session's other connections, so that all of them live
  as long as the latest token.

  The refresh token of a session has digests in place of a name. All refresh tokens that follow each other form a family,
  named after its first one. A connection belongs to the family if it handed over the current token or its predecessor:
  only such a connection may receive a refresh token, so that an access token alone never obtains one.

  KEYS[1] due          sorted set of the partition: "<user id> <session>" -> when to refresh, ms
  KEYS[2] session      hash: token (sealed), expires_at, refreshes, failures, state; with a refresh token refresh_digest,
                       refresh_previous, refresh_family, and refresh_token (sealed) unless a worker is using it
  KEYS[3] connections  set: ids of the session's connections
  KEYS[4] used         sorted set of the user: digests of refresh tokens that were sent to the provider -> when, ms
  ARGV[1] member of `due`
  ARGV[2] id of the connection that presented the token, or "" for the worker that refreshed it
  ARGV[3] token, sealed
  ARGV[4] expiry of the token, ms
  ARGV[5] time of its refresh, ms
  ARGV[6] ms after the expiry during which it can still be exchanged
  ARGV[7] the user's channel
  ARGV[8] session
  ARGV[9] refresh token, sealed; "" without one
  ARGV[10] its digest
  ARGV[11] digest of its predecessor, for the worker that used that one; else ""
  Returns { "gone" } when the session has no connection any more, else
          { "held", refreshes, family of the connection or "" } or
          { "older", stored token (sealed), its expiry in ms, refreshes, family or "", refresh token (sealed) or "" }
]]
--@include refreshing
--@include tokens
return registerToken({ due = KEYS[1], session = KEYS[2], connections = KEYS[3], used = KEYS[4] }, {
  member = ARGV[1], connection = ARGV[2], token = ARGV[3], ends = ARGV[4], refreshAt = ARGV[5], grace = ARGV[6],
  channel = ARGV[7], session = ARGV[8], refreshToken = ARGV[9], digest = ARGV[10], predecessor = ARGV[11],
})
