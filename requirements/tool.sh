#!/bin/sh
# Makes .venv/NAME, the environment of a tool that the tests or the image's build run, from requirements/NAME.lock;
# leaves at once when it is there: tool.sh NAME.
#
# Such tools (policy: what reads manifests and workflows; sbom: what writes the list of the image's contents) want
# other versions of packages than .venv has, so each lives beside them. .venv/NAME/.complete is written last: what was
# interrupted is begun again. Two runs at once wait for each other.
set -eu
cd "$(dirname "$0")/.."

lock=requirements/$1.lock
place=.venv/$1

unset PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

wanted() {
    cksum "$lock" requirements/tool.sh
    pwd
}

there() {
    [ "$(cat "$place/.complete" 2>/dev/null)" = "$(wanted)" ] && "$place/bin/python" -c '' 2>/dev/null
}

there && exit 0
exec 9<"$lock"
if command -v flock >/dev/null; then
    flock 9
    there && exit 0
fi
echo "holdfast: installing what $lock names into $place (once; a quarter of a minute) …" >&2
rm -rf "$place"
# Without a pip of its own: the one of .venv installs there, whatever the distribution left out. Not compiled: of its
# thousands of modules a few are used, and those compile themselves.
.venv/bin/python -m venv --without-pip "$place"
.venv/bin/python -m pip --python "$place/bin/python" install -qq --require-hashes --only-binary :all: \
    --no-compile --no-warn-script-location -r "$lock"
wanted >"$place/.complete.new"
mv "$place/.complete.new" "$place/.complete"
