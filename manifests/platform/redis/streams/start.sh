#!/bin/sh
# Writes the configuration of the server and of its sentinel into /config, before both start.
#
# Who the primary is, the sentinels know: any that answers is asked. When none does (the very first start, or all pods
# were away), it is the first pod; should another one have had newer events, they are read from PostgreSQL again.
set -eu
domain=redis-streams.${NAMESPACE}.svc.cluster.local
me=${HOSTNAME:-$(hostname)}.$domain

primary=
for number in 0 1 2; do
    found=$(timeout 2 valkey-cli -h "redis-streams-$number.$domain" -p 26379 --raw \
        SENTINEL GET-MASTER-ADDR-BY-NAME streams 2>/dev/null | head -n 1) || found=
    case $found in
    redis-streams-*) primary=$found && break ;;
    esac
done
primary=${primary:-redis-streams-0.$domain}

cat >/config/valkey.conf <<CONF
port 6379
dir /data
requirepass $REDIS_PASSWORD
primaryauth $REDIS_PASSWORD
replica-announce-ip $me
# Everything since the last second survives a kill; a rewritten file starts with a snapshot.
appendonly yes
appendfsync everysec
# Full, it refuses; evicting would drop streams with their groups. 3 of 6 GiB: the rest is for what is copied on write
# while the file is rewritten, for buffers of replicas and clients. Alert at 80 % of it (redis/alerts).
maxmemory 3gb
maxmemory-policy noeviction
# A primary that has lost both replicas stops taking writes after ten seconds: what it took would be lost.
min-replicas-to-write 1
min-replicas-max-lag 10
tcp-keepalive 60
CONF
[ "$primary" = "$me" ] || echo "replicaof $primary 6379" >>/config/valkey.conf

# A sentinel writes what it learns into its file; at every start it learns anew (within ten seconds), under the name that
# the others know.
myid=$(printf %s "$me" | sha1sum | cut -d " " -f 1)
cat >/config/sentinel.conf <<CONF
port 26379
dir /tmp
sentinel myid $myid
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $me
# Two of three have to agree. Five seconds without an answer, as long as a rewrite may block on a slow disk.
sentinel monitor streams $primary 6379 2
sentinel auth-pass streams $REDIS_PASSWORD
sentinel down-after-milliseconds streams 5000
sentinel failover-timeout streams 15000
sentinel parallel-syncs streams 1
CONF
