#!/bin/sh
# Lists everything in the image, with version and licence, as CycloneDX: `make sbom`. Prints the file's name.
#
# What is asked is the image itself, and what it holds is held against the lock. Python's packages are read by the
# Python project's own tool, Debian's by one for dpkg; image/sbom.py puts them together and checks the result against
# CycloneDX's schema. The same image makes the same file, to the byte. Never in the image.
set -eu
cd "$(dirname "$0")/.."

image=${IMAGE:-holdfast}
engine=$(sh image/engine.sh name)
place=build/sbom
tools=.venv/sbom/bin

sh requirements/tool.sh sbom
rm -rf $place
mkdir -p $place
container=$("$engine" create "$image")
trap '"$engine" rm "$container" >/dev/null; rm -rf $place' EXIT
"$engine" export --output $place/image.tar "$container"

# An environment that has what the image has, as far as the packages describe themselves.
$tools/python -m venv --without-pip $place/environment
$tools/python image/sbom.py collect $place/image.tar $place/environment
$tools/cyclonedx-py environment $place/environment --pyproject pyproject.toml --output-reproducible \
    --spec-version 1.6 --output-format JSON --output-file $place/python.json
$tools/debsbom generate --root $place/image.tar --sbom-type cdx --with-licenses --no-recommends-deps \
    --cdx-schema-version 1.6 --out $place/debian
$tools/python image/sbom.py merge $place/python.json $place/debian.cdx.json $place/image.tar requirements/image.lock \
    build/holdfast.cdx.json
echo "holdfast: build/holdfast.cdx.json, $($tools/python -c 'import json; print(len(json.load(open("build/holdfast.cdx.json"))["components"]))') packages"
