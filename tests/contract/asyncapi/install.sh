#!/bin/sh
# Puts the official AsyncAPI parser into .venv/asyncapi, exactly what package-lock.json beside this names, by hash;
# leaves at once when it is there. Exit code 1 where it cannot be had: npm is missing and cannot be installed, or
# nobody answers. Waits for nothing longer than a few minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../../.."
place=.venv/asyncapi

wanted() {
    cksum tests/contract/asyncapi/install.sh tests/contract/asyncapi/package-lock.json
    node --version
}

there() {
    [ "$(cat "$place/.complete" 2>/dev/null)" = "$(wanted 2>/dev/null)" ]
}

fail() {
    echo "holdfast: $*" >&2
    exit 1
}

if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
    # On a machine for tests that is all one's own, as continuous integration is: Debian's.
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "needs npm (Debian, Ubuntu: apt-get install npm)"
    echo "holdfast: installing Debian's npm (once) …" >&2
    timeout 120 apt-get -qq update || true
    DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq -y install --no-install-recommends npm >/dev/null ||
        fail "npm cannot be installed"
fi
there && exit 0
exec 9<"$here/package-lock.json"
if command -v flock >/dev/null; then
    flock 9
    there && exit 0
fi
echo "holdfast: installing the AsyncAPI parser into $place (once; half a minute) …" >&2
rm -rf "$place"
mkdir -p "$place"
cp "$here/package.json" "$here/package-lock.json" "$place"
cd "$place"
install='npm ci --ignore-scripts --no-audit --no-fund --loglevel=error'
timeout 240 $install || timeout 240 $install || fail "npm cannot install what package-lock.json names"
cd "$here/../../.."
wanted >"$place/.complete.new"
mv "$place/.complete.new" "$place/.complete"
