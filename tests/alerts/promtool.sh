#!/bin/sh
# Finds promtool, or brings it: sh tests/alerts/promtool.sh prints the path of one.
#
# It is PROMTOOL itself if that is set; else `promtool` on the PATH; else that of Debian's package `prometheus`, unpacked
# into .venv/prometheus without root. The package is not installed: installing it would start a server. Nothing is
# skipped: where there is none and none can be had, this fails.
set -eu
cd "$(dirname "$0")/../.."

place=.venv/prometheus

download() { # the package; with lists of our own should the machine's be none, or too old
    apt-get -qq download prometheus >log 2>&1 && return
    mkdir -p lists/partial cache/archives/partial
    apt-get -qq -o Dir::State::lists="$PWD/lists" -o Dir::Cache="$PWD/cache" update >>log 2>&1 || true
    apt-get -qq -o Dir::State::lists="$PWD/lists" -o Dir::Cache="$PWD/cache" download prometheus >>log 2>&1
}

if [ -n "${PROMTOOL:-}" ]; then
    echo "$PROMTOOL"
    exit 0
fi
if command -v promtool; then
    exit 0
fi
if [ ! -x "$place/usr/bin/promtool" ]; then
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo "holdfast: promtool is needed and is not here: install Prometheus, or name it by PROMTOOL" >&2
        exit 1
    fi
    echo "holdfast: unpacking promtool from Debian's package prometheus into $place (once) …" >&2
    rm -rf "$place.new"
    mkdir -p "$place.new"
    if ! (cd "$place.new" && download); then
        cat "$place.new/log" >&2
        echo "holdfast: promtool is needed, and Debian's package prometheus cannot be had" >&2
        exit 1
    fi
    dpkg-deb -x "$place.new"/prometheus_*.deb "$place.new/package"
    "$place.new/package/usr/bin/promtool" --version >/dev/null
    rm -rf "$place"
    mv "$place.new/package" "$place"
    rm -rf "$place.new"
fi
echo "$place/usr/bin/promtool"
