#!/bin/sh
# What `make asyncapi` does: the official AsyncAPI parser reads the document that gateways serve at /asyncapi.json,
# with all its rules and the official JSON Schema, and finds no error and no warning; in a document that was broken on
# purpose it finds one. Needs no server. Exit code 1 where something is wrong.
set -eu
cd "$(dirname "$0")/../../.."

sh tests/contract/asyncapi/install.sh
document=.venv/asyncapi/asyncapi.json
.venv/bin/python -c 'import sys; from app.contracts.asyncapi import async_api; sys.stdout.buffer.write(async_api())' \
    >"$document"
cp tests/contract/asyncapi/check.mjs .venv/asyncapi/check.mjs
timeout 120 node .venv/asyncapi/check.mjs "$document"
