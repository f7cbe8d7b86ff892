#!/bin/sh
# Makes .venv from requirements/dev.lock, or leaves at once when it is already right.
#
# Needs Python >= 3.11 and nothing else. PYTHON names an interpreter; without it the first fitting one of
# the list below is taken. The environment counts as finished only when .venv/.complete was written, which
# is the very last step: a creation that was interrupted is begun again. Two runs at once wait for each other.
set -eu
cd "$(dirname "$0")/.."

lock=requirements/dev.lock
python_in_venv=.venv/bin/python
candidates='python3.11 python3.12 python3.13 python3.14 python3 python'

# Settings of the caller's that would lead the installation elsewhere.
unset PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

fail() {
    echo "holdfast: $*" >&2
    exit 1
}

# runs INTERPRETER CODE: whether it is there, is new enough, and the code passes.
runs() {
    "$1" -c "import sys; assert sys.version_info >= (3, 11); $2" 2>/dev/null
}

# choose CODE: prints the first interpreter for which the code passes.
choose() {
    if [ -n "${PYTHON:-}" ]; then
        runs "$PYTHON" "$1" && echo "$PYTHON"
        return
    fi
    for candidate in $candidates; do
        runs "$candidate" "$1" && echo "$candidate" && return
    done
    return 1
}

# What the environment was made from: the lock, this script, and the folder, whose name its scripts contain.
wanted_environment() {
    cksum "$lock" requirements/environment.sh
    pwd
}

# What the project's own installation was made from.
wanted_installation() {
    cksum pyproject.toml
}

has() {
    [ "$(cat "$1" 2>/dev/null)" = "$2" ]
}

# same_python: whether .venv runs, and on the interpreter that PYTHON asks for, if it asks.
same_python() {
    runs "$python_in_venv" pass || return 1
    [ -n "${PYTHON:-}" ] || return 0
    identity='import sys; print(sys.base_prefix, sys.version)'
    [ "$("$PYTHON" -c "$identity" 2>/dev/null)" = "$("$python_in_venv" -c "$identity")" ]
}

up_to_date() {
    has .venv/.complete "$(wanted_environment)" && has .venv/.installed "$(wanted_installation)" && same_python
}

record() { # record FILE TEXT: whole or not at all
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}

install_lock() { # install_lock PIP...
    echo "holdfast: installing what $lock names (the first time about a minute) …"
    "$@" install -qq --require-hashes --only-binary :all: -r "$lock" ||
        fail "could not install $lock: see pip's message above; 'make' begins again where it is needed"
}

create() {
    if python=$(choose 'import ensurepip, venv'); then
        echo "holdfast: creating .venv with $("$python" -V)"
        "$python" -m venv --clear .venv || fail "$python could not create .venv"
        install_lock "$python_in_venv" -m pip
    elif python=$(choose 'import pip, venv'); then
        echo "holdfast: creating .venv with $("$python" -V) and its own pip"
        "$python" -m venv --clear --without-pip .venv || fail "$python could not create .venv"
        install_lock "$python" -m pip --python "$python_in_venv"
    elif python=$(choose pass); then
        fail "$("$python" -V) has neither ensurepip nor pip: install them (Debian, Ubuntu: apt-get install python3-venv)"
    elif [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON does not run or is older than Python 3.11"
    else
        fail "no Python >= 3.11 found (looked for: $candidates); install one, or name it: make PYTHON=/path/to/python3"
    fi
}

remove_what_the_lock_does_not_name() {
    "$python_in_venv" - "$lock" <<'CODE' | xargs -r "$python_in_venv" -m pip uninstall --quiet --yes
import importlib.metadata, re, sys

locked = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in open(sys.argv[1]) if "==" in line}
for distribution in importlib.metadata.distributions():
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    if name not in locked and name != "holdfast":
        print(name)
CODE
}

# Only the lock has changed: processes that run from .venv keep the files that stay.
update() {
    rm -f .venv/.complete
    install_lock "$python_in_venv" -m pip
    remove_what_the_lock_does_not_name
}

install_project() {
    rm -f .venv/.installed
    "$python_in_venv" -m pip install --quiet --no-index --no-deps --no-build-isolation --editable . ||
        fail "could not install the project into .venv"
    record .venv/.installed "$(wanted_installation)"
}

up_to_date && exit 0
[ ! -L .venv ] || fail ".venv is a symbolic link, and what is behind it would be emptied: remove it (rm .venv), then 'make'"
exec 9<.
if command -v flock >/dev/null; then
    flock 9
    up_to_date && exit 0
fi
if [ -f .venv/.complete ] && [ "$(tail -n 1 .venv/.complete)" = "$(pwd)" ] && same_python; then
    has .venv/.complete "$(wanted_environment)" || update
else
    rm -f .venv/.complete .venv/.installed
    create
fi
record .venv/.complete "$(wanted_environment)"
has .venv/.installed "$(wanted_installation)" || install_project
