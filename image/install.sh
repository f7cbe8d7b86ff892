#!/bin/sh
# Fills the image's environment, inside the image's build:
# `install.sh packages FOLDER LOCK`, `install.sh program FOLDER`, `install.sh sandbox FOLDER`.
#
# The result depends on the lock and the program alone: byte code is checked by nothing at run time and says
# nothing of when it was made, and every file has the same time.
set -eu
folder=$2
lock=${3:-}
python=$folder/bin/python

# Where a wheel of pip lies beside the others, there is no index to ask: everything is there.
pip() {
    for wheel in /wheels/pip-*.whl; do
        if [ -f "$wheel" ]; then
            PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels python3 "$wheel/pip" --python "$python" "$@"
        else
            python3 -m pip --python "$python" "$@"
        fi
    done
}

compile() {
    "$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$@"
    find "$@" -exec touch --no-dereference --date=@0 {} +
}

packages() {
    [ -x "$python" ] || python3 -m venv --without-pip "$folder"
    pip install --quiet --disable-pip-version-check --root-user-action ignore --no-cache-dir --no-compile \
        --require-hashes --only-binary :all: -r "/wheels/$lock"
    # The framework could make up examples for an API's description with these; ours are written, nothing imports them.
    pip uninstall --quiet --disable-pip-version-check --root-user-action ignore --yes faker polyfactory
    # What debuggers read of compiled modules: a fifth of all that is installed.
    "$python" /strip.py "$folder"
    # Sources of compiled modules, and stubs: nothing reads them.
    find "$folder" \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' \) -delete
    rm -rf "$folder"/lib/python3*/site-packages/temporalio/bridge/sdk-core
    # What pip notes of where a wheel came from differs from build to build.
    find "$folder" -name direct_url.json -delete
    compile "$folder"
}

site() {
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

program() {
    find /source/app -name __pycache__ -prune -exec rm -rf {} +
    cp -R /source/app "$(site)/app"
    rm -rf "$(site)/app/dev"
    cat >"$folder/bin/holdfast" <<CODE
#!$python
import sys

from app.__main__ import main

sys.exit(main())
CODE
    chmod 755 "$folder/bin/holdfast"
    compile "$(site)/app" "$folder/bin/holdfast"
}

sandbox() {
    mkdir "$(site)/app/dev"
    cp -R /source/app/dev/__init__.py /source/app/dev/sandbox /source/app/dev/seed.py "$(site)/app/dev"
    compile "$(site)/app/dev"
}

"$1"
