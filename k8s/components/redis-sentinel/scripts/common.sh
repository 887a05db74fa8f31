# Shared by the scripts of the Redis pods. Variables: NAME (address of this server for the others), SENTINELS and PEERS
# (addresses of all Sentinels and Redis servers), REDIS_PASSWORD; for tests on one machine also REDIS_PORT, SENTINEL_PORT,
# DATA and BIND.
set -eu
umask 077
port="${REDIS_PORT:-6379}"
sentinel_port="${SENTINEL_PORT:-26379}"
data="${DATA:-/data}"
export REDISCLI_AUTH="$REDIS_PASSWORD"

# ask HOST PORT COMMAND...: prints the answer, and nothing if there is none within two seconds.
ask() {
  host="$1"
  at="$2"
  shift 2
  timeout 2 redis-cli -h "$host" -p "$at" "$@" 2>/dev/null || true
}

# Prints the master that at least two Sentinels name, or nothing. An error of Sentinel has spaces and is no name.
elected() {
  for sentinel in $SENTINELS; do
    ask "$sentinel" "$sentinel_port" sentinel get-master-addr-by-name tollgate | head -n 1
  done | sed 's/\.tollgate-redis$//' | grep -E '^[A-Za-z0-9.-]+$' | sort | uniq -c |
    while read -r votes name; do
      if [ "$votes" -ge 2 ]; then echo "$name"; fi
    done
}

# replication FIELD: prints a field of INFO replication of this server.
replication() {
  ask "$NAME" "$port" info replication | tr -d '\r' | sed -n "s/^$1://p"
}

log() {
  echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $*"
}
