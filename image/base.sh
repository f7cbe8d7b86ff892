#!/bin/sh
# Makes a base image without a registry: Debian 12 with its Python 3.11 and nothing else, from Debian's packages.
#
# Usage: base.sh NAME [ENGINE]. Needs root and debootstrap. Leaves at once when the image is there.
set -eu
name=$1
engine=${2:-docker}

"$engine" image inspect "$name" >/dev/null 2>&1 && exit 0
root=$(mktemp -d)
trap 'rm -rf "$root" "$root.log"' EXIT
echo "holdfast: making the base image $name with debootstrap (about a minute) …"
debootstrap --variant=minbase --include=python3,ca-certificates,tzdata bookworm "$root" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    exit 1
}
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/*
# Of the documents the licences stay: who passes the packages on passes them on.
find "$root/usr/share/doc" -mindepth 2 ! -type d ! -name copyright -delete
tar --directory "$root" --create --one-file-system . | "$engine" import - "$name" >/dev/null
