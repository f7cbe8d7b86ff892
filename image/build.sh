#!/bin/sh
# Builds the image and the sandbox's: `make image`. Prints their names.
#
# The wheels are fetched beforehand, with the caller's settings for pip, so that the build itself needs no
# network. IMAGE names the result, PYTHON_IMAGE the base; where that cannot be had and this is root on Debian,
# a base is made of Debian's packages.
set -eu
cd "$(dirname "$0")/.."

image=${IMAGE:-holdfast}
python_image=${PYTHON_IMAGE:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' Containerfile)}
engine=$(sh image/engine.sh name)
python=.venv/bin/python

echo "holdfast: fetching the wheels that the locks name …"
rm -rf build/wheels.new
# What is for some releases of Python only is fetched for all: the base may have another one.
mkdir -p build
sed "s/ ; python_full_version < '[0-9.]*'//" requirements/sandbox.lock >build/all.lock
"$python" -m pip download -qq --disable-pip-version-check --require-hashes --only-binary :all: \
    --dest build/wheels.new -r build/all.lock
# With pip beside them there is no need of one in the base.
"$python" - <<'CODE' >build/pip.lock
import re

lock = open("requirements/dev.lock").read()
print(re.search(r"^pip==.*?(?=^\S)", lock, re.MULTILINE | re.DOTALL)[0])
CODE
"$python" -m pip download -qq --disable-pip-version-check --require-hashes --only-binary :all: \
    --dest build/wheels.new -r build/pip.lock
rm -rf build/wheels
mv build/wheels.new build/wheels

if ! "$engine" image inspect "$python_image" >/dev/null 2>&1 && ! "$engine" pull --quiet "$python_image" 2>/dev/null; then
    echo "holdfast: $python_image cannot be had here" >&2
    python_image=holdfast-base:bookworm
    sh image/base.sh "$python_image" "$engine"
else
    # A tag may be moved while it is built from: from here on it is a digest, and the image's label says which.
    digest=$("$engine" image inspect --format '{{if .RepoDigests}}{{index .RepoDigests 0}}{{end}}' "$python_image")
    python_image=${digest:-$python_image}
fi

fresh=
[ "${IMAGE_CACHE:-yes}" = yes ] || fresh=--no-cache
for target in holdfast sandbox; do
    tag=$image
    [ $target = holdfast ] || tag=$image-$target
    # One builder and the other say different things of themselves; what matters is in the exit code.
    "$engine" build --quiet --file Containerfile --target $target $fresh \
        --build-arg PYTHON_IMAGE="$python_image" \
        --build-arg VERSION="$("$python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')" \
        --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
        --tag "$tag" . >/dev/null
    size=$("$engine" image inspect --format '{{.Size}}' "$tag")
    echo "holdfast: $tag, $((size / 1000000)) MB"
done
