#!/bin/sh
# Ready: as the master, if most Sentinels agree; as a replica, if it follows that master and has all of its data.
. "$(dirname "$0")/common.sh"
case "$(replication role)" in
  master) [ "$(elected)" = "$NAME" ] ;;
  slave) [ "$(replication master_link_status)" = up ] && [ "$(replication master_host | sed 's/\.tollgate-redis$//')" = "$(elected)" ] ;;
  *) exit 1 ;;
esac
