#!/bin/sh
# What `make alerts-test` does: the rules are read by promtool, each alert is tried with series that make it fire and
# with series that do not (*.yaml beside this file), and every expression of dashboards and runbooks is parsed.
set -eu
cd "$(dirname "$0")/../.."

promtool=$(sh tests/alerts/promtool.sh)
expressions=$(mktemp)
trap 'rm -f "$expressions"' EXIT

"$promtool" check rules manifests/components/prometheus-rules/*.rules.yaml
"$promtool" test rules tests/alerts/*.yaml
.venv/bin/python -m tests.architecture.watched expressions >"$expressions"
"$promtool" check rules "$expressions"
