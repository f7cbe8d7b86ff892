#!/bin/sh
# Runs a command with HOLDFAST_TEST_REDIS set to a Redis server of at least 7.0, so that tests run against
# another server than the embedded Valkey:
#
#   sh tests/second_redis.sh .venv/bin/python -m pytest tests/integration/hotpath
#
# The server is HOLDFAST_TEST_REDIS itself if it is set; else `redis-server` on the PATH; else Debian's
# package, fetched with its libraries into .venv/second-redis, without root and without installing anything.
# Where there is none, this says so and succeeds without running the command: a machine without Debian's
# package tools has no second server to test against.
set -eu

place=$(cd "$(dirname "$0")/.." && pwd)/.venv/second-redis
wrapper=$place/redis-server

recent() { # a server of version 7 or later
    "$1" --version 2>/dev/null | grep -Eq ' v=([7-9]|[1-9][0-9])\.'
}

download() { # packages into $place/root; with package lists of our own should the machine have none
    for package; do
        apt-get -qq download "$package" 2>/dev/null && continue
        if [ ! -d "$place/lists/partial" ]; then
            mkdir -p "$place/lists/partial" "$place/cache/archives/partial"
            apt-get -qq -o Dir::State::lists="$place/lists" -o Dir::Cache="$place/cache" update || return 1
        fi
        apt-get -qq -o Dir::State::lists="$place/lists" -o Dir::Cache="$place/cache" download "$package" ||
            return 1
    done
    for archive in ./*.deb; do
        dpkg -x "$archive" root && rm "$archive" || return 1
    done
}

package_of() { # the package that holds a library
    case $1 in
    libjemalloc.so.2) echo libjemalloc2 ;;
    liblzf.so.1) echo liblzf1 ;;
    libatomic.so.1) echo libatomic1 ;;
    libssl.so.3 | libcrypto.so.3) echo libssl3 ;;
    libsystemd.so.0) echo libsystemd0 ;;
    liblua5.1.so.0) echo liblua5.1-0 ;;
    liblua5.1-cjson.so.0) echo lua-cjson ;;
    liblua5.1-bitop.so.0) echo lua-bitop ;;
    *) return 1 ;;
    esac
}

fetch() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    rm -rf "$place"
    mkdir -p "$place"
    cd "$place"
    download redis-server redis-tools || return 1
    server=$(readlink -f root/usr/bin/redis-server)
    missing=$(ldd "$server" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found$/\1/p')
    for library in $missing; do
        package=$(package_of "$library") && download "$package" || return 1
    done
    libraries=$(find "$place/root" -name '*.so*' -exec dirname {} + | sort -u | tr '\n' ':')
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec "%s" "$@"\n' "'$libraries'" "$place/root/usr/bin/redis-server" \
        >"$wrapper"
    chmod +x "$wrapper"
    recent "$wrapper"
}

server=${HOLDFAST_TEST_REDIS:-$(command -v redis-server || true)}
if [ -z "$server" ] || ! recent "$server"; then
    server=$wrapper
    if ! recent "$server" && ! (fetch); then
        rm -rf "$place"
        echo "****************************************************************************************" >&2
        echo "SKIPPED: no redis-server of version 7 or later is here, and Debian's cannot be fetched." >&2
        echo "Not run: $*" >&2
        echo "****************************************************************************************" >&2
        exit 0
    fi
fi
HOLDFAST_TEST_REDIS=$server
export HOLDFAST_TEST_REDIS
echo "Against $("$server" --version | cut -d' ' -f1-3): $server"
exec "$@"
