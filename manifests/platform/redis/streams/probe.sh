#!/bin/sh
# Ready: it answers, and is the primary or has the primary's data. (A replica that still loads would answer LOADING.)
set -eu
export REDISCLI_AUTH="$REDIS_PASSWORD"
info=$(timeout 2 valkey-cli INFO replication)
case $info in
*role:master*) ;;
*master_link_status:up*) ;;
*) exit 1 ;;
esac
