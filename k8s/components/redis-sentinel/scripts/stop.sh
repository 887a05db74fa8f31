#!/bin/sh
# Before a stop (preStop): if this server is the master, hands that role over without loss. It pauses writes, waits until
# the replicas have everything, and lets the Sentinels promote one of them. A write that is paused gets no answer, so
# nothing acknowledged is lost. Bounded by 35 s; without a replica that has everything, the server stops as master and
# continues as master from its volume.
. "$(dirname "$0")/common.sh"
pause_ms=60000

# Whether at least $1 replicas are online, and all that are connected have the offset $2.
in_sync() {
  ask "$NAME" "$port" info replication | tr -d '\r' | awk -F '[,=]' -v wanted="$1" -v offset="$2" '
    /^slave[0-9]+:/ { all++; if ($6 == "online" && $8 >= offset) ready++ }
    END { exit !(ready >= wanted && ready == all) }'
}

# within SECONDS COMMAND...: repeats the command until it succeeds.
within() {
  end=$(($(date +%s) + $1))
  shift
  until "$@"; do
    if [ "$(date +%s)" -ge "$end" ]; then return 1; fi
    sleep 0.1
  done
}

another_is_elected() {
  master="$(elected)"
  [ -n "$master" ] && [ "$master" != "$NAME" ]
}

fail_over() {
  for sentinel in $SENTINELS; do
    answer="$(ask "$sentinel" "$sentinel_port" sentinel failover tollgate)"
    # INPROG: another one has begun.
    case "$answer" in OK | *INPROG*) return 0 ;; esac
  done
  return 1
}

if [ "$(replication role)" != master ]; then exit 0; fi
# A replica that restarts at this moment comes back in this time; it is missing from the list meanwhile.
within 8 in_sync 2 0 || log "fewer than two replicas are online"
ask "$NAME" "$port" client pause "$pause_ms" write > /dev/null
offset="$(replication master_repl_offset)"
if within 5 in_sync 1 "${offset:-0}" && within 5 fail_over && within 15 another_is_elected; then
  # Before the pause ends: paused writes then get an error instead of an answer.
  ask "$NAME" "$port" replicaof "$master" "$port" > /dev/null
  log "the master is $master now"
else
  log "no failover: stopping as master"
fi
ask "$NAME" "$port" client unpause > /dev/null
