#!/bin/sh
# Starts Redis in the role that the Sentinels give it. Without this question a former master would accept writes again
# until a Sentinel demotes it, and those writes would be lost.
. "$(dirname "$0")/common.sh"

# Whether another server has data and this one has none: its volume is new.
lost_its_data() {
  if [ -d "$data/appendonlydir" ]; then return 1; fi
  for peer in $PEERS; do
    size="$(ask "$peer" "$port" dbsize)"
    if [ "${size:-0}" -gt 0 ] 2>/dev/null; then return 0; fi
  done
  return 1
}

while true; do
  master="$(elected)"
  if [ -z "$master" ]; then
    log "waiting for two Sentinels that name the same master"
  elif [ "$master" = "$NAME" ] && lost_its_data; then
    # As an empty master it would make the others delete their data. The Sentinels promote one of them.
    log "waiting for a failover, because the volume is empty"
  else
    break
  fi
  sleep 1
done
if [ "$master" = "$NAME" ]; then follows=""; else follows="replicaof $master $port"; fi
log "starting; the master is $master"
# All settings are written at every start, so that changes of this file take effect. min-replicas-max-lag is not longer
# than the Sentinels wait: an isolated master stops accepting writes before another master is promoted.
cat > "$data/next.conf" <<END
dir $data
port $port
bind ${BIND:-* -::*}
maxmemory-policy noeviction
appendonly yes
appendfsync everysec
save ""
repl-diskless-sync-delay 0
min-replicas-to-write 1
min-replicas-max-lag 5
requirepass $REDIS_PASSWORD
masterauth $REDIS_PASSWORD
replica-announce-ip $NAME
$follows
END
mv "$data/next.conf" "$data/redis.conf"
# With `exec` Redis itself receives SIGTERM.
exec redis-server "$data/redis.conf"
