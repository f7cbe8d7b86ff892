#!/bin/sh
# Adds to .venv what requirements/bench.lock names beyond the development lock, or leaves at once when it is there.
#
# Only `make bench` runs it, after environment.sh. Peers are for information: one that cannot be installed here
# (no network, no wheel for this platform) is named, the rest is installed, and this ends well all the same.
# .venv/.peers is written when everything is there; a .venv that was made or changed later has a newer
# .complete, and the peers are installed again. Two runs at once wait for each other.
set -eu
cd "$(dirname "$0")/.."

lock=requirements/bench.lock
python=.venv/bin/python

unset PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

wanted() {
    cksum "$lock" requirements/peers.sh
}

there() {
    [ "$(cat .venv/.peers 2>/dev/null)" = "$(wanted)" ] && [ .venv/.peers -nt .venv/.complete ]
}

install() { # install FILE ARGUMENTS...: from wheels whose hashes the file has
    file=$1
    shift
    "$python" -m pip install -qq --require-hashes --only-binary :all: "$@" -r "$file"
}

# One after the other, so that one without a wheel does not keep the others away.
install_what_can_be_had() {
    pieces=$(mktemp -d)
    trap 'rm -rf "$pieces"' EXIT
    awk -v to="$pieces" '/^[a-z0-9]/ { n++ } n { print > sprintf("%s/%03d.txt", to, n) }' "$lock"
    for piece in "$pieces"/*.txt; do
        install "$piece" --no-deps 2>/dev/null ||
            echo "holdfast: without $(sed -n '1s/ .*//p' "$piece"): it cannot be installed here" >&2
    done
}

there && exit 0
exec 9<.
if command -v flock >/dev/null; then
    flock 9
    there && exit 0
fi
rm -f .venv/.peers
echo "holdfast: installing what the benchmarks compare with (once; about half a minute) …" >&2
if install "$lock"; then
    wanted >.venv/.peers.new
    mv .venv/.peers.new .venv/.peers
else
    echo "holdfast: not all of $lock can be installed here (pip's message above); taking what can …" >&2
    install_what_can_be_had
fi
