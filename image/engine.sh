#!/bin/sh
# Which container engine there is: `engine.sh name` prints docker or podman, or says what is missing.
# `engine.sh start` also installs and starts Docker Engine where that is possible (root on Debian); what it
# started, `engine.sh stop` ends.
set -eu
cd "$(dirname "$0")/.."
folder=build/engine

works() {
    command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1
}

name() {
    for engine in ${ENGINE:-docker /usr/bin/docker podman}; do
        works "$engine" && echo "$engine" && return
    done
    return 1
}

start() {
    name >/dev/null && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "holdfast: no container engine runs here; it could be installed by root on Debian only" >&2
        return 1
    fi
    for package in docker.io debootstrap; do
        dpkg -s $package >/dev/null 2>&1 && continue
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends docker.io debootstrap >/dev/null
        break
    done
    mkdir -p $folder
    # A data folder of its own: nothing that is there already is touched.
    setsid dockerd --data-root "$(pwd)/$folder/data" --pidfile "$(pwd)/$folder/pid" >$folder/log 2>&1 &
    for _ in $(seq 120); do
        name >/dev/null && return
        sleep 0.5
    done
    tail -n 5 $folder/log >&2
    return 1
}

stop() {
    [ -f $folder/pid ] || return 0
    kill "$(cat $folder/pid)"
    while [ -f $folder/pid ]; do sleep 0.2; done
}

case $1 in
name) name || { echo "holdfast: no container engine runs here (docker, podman)" >&2; exit 1; } ;;
start) start ;;
stop) stop ;;
esac
