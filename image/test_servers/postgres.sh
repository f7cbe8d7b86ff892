#!/bin/sh
# Makes the database in this container, then runs the server, by the settings of the official image:
# POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_INITDB_ARGS, PGPORT.
set -eu
[ "$1" = postgres ] && shift

set -- -D /var/lib/postgresql/data -c unix_socket_directories=/tmp -c listen_addresses='*' "$@"
bin=$(pg_config --bindir 2>/dev/null || dirname "$(ls -d /usr/lib/postgresql/*/bin/postgres)")
(
    umask 077
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
)
# shellcheck disable=SC2086 # several arguments
"$bin/initdb" -D /var/lib/postgresql/data --username "$POSTGRES_USER" --pwfile /tmp/password \
    --auth scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
rm /tmp/password
echo 'host all all all scram-sha-256' >>/var/lib/postgresql/data/pg_hba.conf
echo "CREATE DATABASE \"$POSTGRES_DB\"" |
    "$bin/postgres" --single -D /var/lib/postgresql/data -c fsync=off postgres
exec "$bin/postgres" "$@"
