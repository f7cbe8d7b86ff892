#!/bin/sh
# Makes .venv/policy, the environment of the policy scanner, or leaves at once when it is there.
#
# Run by the test of the manifests that needs it (the first time about a minute). The scanner wants older
# versions of packages that .venv has newer, so it lives beside them. .venv/policy/.complete is written last:
# what was interrupted is begun again. Two runs at once wait for each other.
set -eu
cd "$(dirname "$0")/.."

lock=requirements/policy.lock
place=.venv/policy

unset PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

wanted() {
    cksum "$lock" requirements/policy.sh
    pwd
}

there() {
    [ "$(cat $place/.complete 2>/dev/null)" = "$(wanted)" ] && $place/bin/python -c '' 2>/dev/null
}

there && exit 0
exec 9<requirements/policy.sh
if command -v flock >/dev/null; then
    flock 9
    there && exit 0
fi
echo "holdfast: installing what $lock names into $place (once; about a minute) …" >&2
rm -rf $place
# Without a pip of its own: the one of .venv installs there, whatever the distribution left out.
.venv/bin/python -m venv --without-pip $place
.venv/bin/python -m pip --python $place/bin/python install -qq --require-hashes --only-binary :all: \
    --no-warn-script-location -r "$lock"
wanted >$place/.complete.new
mv $place/.complete.new $place/.complete
