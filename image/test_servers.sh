#!/bin/sh
# Runs a command with HOLDFAST_TEST_STACK=containers and an image for each server (docs/TESTING.md):
#
#   sh image/test_servers.sh .venv/bin/python -m pytest tests/integration/postgres
#
# The images are those that HOLDFAST_TEST_POSTGRES_IMAGE, …_REDIS_IMAGE and …_TEMPORAL_IMAGE name; else the
# official ones; where they cannot be had, images made here: PostgreSQL and Redis of Debian's packages (where
# no registry is reached: as root, with debootstrap), Temporal of the program in .venv. Those are used where the
# others can be had, too, if they are named: `holdfast-test-postgres`, `holdfast-test-redis`,
# `holdfast-test-temporal`.
set -eu
cd "$(dirname "$0")/.."
engine=$(sh image/engine.sh name)
base=holdfast-base:bookworm

is_here() {
    "$engine" image inspect "$1" >/dev/null 2>&1
}

make_image() { # SERVER
    if [ "$1" = temporal ]; then
        # One program that needs nothing of a system.
        tar --directory "$(dirname "$(readlink -f .venv/bin/temporal)")" --create temporal |
            "$engine" import --change 'ENTRYPOINT ["/temporal"]' --change 'USER 1000' --change 'ENV HOME=/ USER=temporal' \
                - "holdfast-test-$1" >/dev/null
    else
        if ! is_here "$base"; then
            if "$engine" pull --quiet debian:bookworm-slim >/dev/null 2>&1; then
                base=debian:bookworm-slim
            else
                sh image/base.sh "$base" "$engine"
            fi
        fi
        echo "holdfast: making the image holdfast-test-$1 …" >&2
        "$engine" build --quiet --network host --target "$1" \
            --build-arg BASE="$base" --build-arg http_proxy --build-arg https_proxy \
            --tag "holdfast-test-$1" --file image/test_servers/Containerfile image/test_servers >/dev/null
    fi
}

choose() { # SERVER VARIABLE GIVEN: prints the name of an image that is here
    official=$(sed -n "s/^$2 = \"\(.*\)\"\$/\1/p" tests/stack_containers.py)
    wanted=${3:-$official}
    if [ "$wanted" != "holdfast-test-$1" ]; then
        if is_here "$wanted" || "$engine" pull --quiet "$wanted" >/dev/null 2>&1; then
            echo "$wanted"
            return
        fi
        echo "holdfast: $wanted cannot be had here" >&2
        [ -z "$3" ] || return 1
    fi
    is_here "holdfast-test-$1" || make_image "$1" >&2
    echo "holdfast-test-$1"
}

HOLDFAST_TEST_POSTGRES_IMAGE=$(choose postgres POSTGRES_IMAGE "${HOLDFAST_TEST_POSTGRES_IMAGE:-}")
HOLDFAST_TEST_REDIS_IMAGE=$(choose redis REDIS_IMAGE "${HOLDFAST_TEST_REDIS_IMAGE:-}")
HOLDFAST_TEST_TEMPORAL_IMAGE=$(choose temporal TEMPORAL_IMAGE "${HOLDFAST_TEST_TEMPORAL_IMAGE:-}")
HOLDFAST_TEST_STACK=containers
export HOLDFAST_TEST_STACK HOLDFAST_TEST_POSTGRES_IMAGE HOLDFAST_TEST_REDIS_IMAGE HOLDFAST_TEST_TEMPORAL_IMAGE
echo "Against containers of $HOLDFAST_TEST_POSTGRES_IMAGE, $HOLDFAST_TEST_REDIS_IMAGE, $HOLDFAST_TEST_TEMPORAL_IMAGE"
exec "$@"
