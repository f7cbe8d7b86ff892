"""Few tests that fail in `make test` are tried again, and nothing that is broken gets through."""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest
from tests.architecture.sources import ROOT

UNSTEADY = """
from pathlib import Path

def test_unsteady():
    before = Path("ran")
    if not before.exists():
        before.touch()
        raise AssertionError("only the first time")
"""
BROKEN = "\ndef test_broken():\n    assert False\n"
SIX = '\nimport pytest\n\n@pytest.mark.parametrize("n", range(6))\ndef test_broken(n):\n    assert False\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with that script, and a `make test` as ours."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/again", tmp_path / ".ci/again")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "Makefile").write_text(
        "test:\n\t.venv/bin/python -m pytest -p xdist.plugin -n $(or $(WORKERS),2) $(ARGS)\n"
    )
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n" + inspect.getsource(conftest.pytest_sessionfinish)
    )
    (tmp_path / "test_steady.py").write_text("def test_steady():\n    pass\n")
    return tmp_path


def tried(project: Path) -> tuple[int, str]:
    """Run `make test`, which has to fail, then the script: its exit code, and what both said."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in {"ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "WORKERS"}
        and not name.startswith("PYTEST_")
    } | {"UNSTEADY": "unsteady", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    def run(*command: str) -> tuple[int, str]:
        done = subprocess.run(
            command, cwd=project, env=environ, capture_output=True, text=True, timeout=100, check=False
        )
        return done.returncode, done.stdout + done.stderr

    code, first = run("make", "test")
    assert code == 2, first
    code, then = run(".ci/again")
    return code, then


def test_a_test_that_passes_alone_is_named_and_the_rest_goes_on(project: Path):
    """It alone is run again."""
    (project / "test_it.py").write_text(UNSTEADY)
    code, said = tried(project)
    assert code == 0, said
    assert "1 passed" in said
    assert "UNSTEADY" in said
    assert (project / "unsteady").read_text() == "test_it.py::test_unsteady\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BROKEN, "FAILED: twice"),
        (UNSTEADY + BROKEN, "FAILED: twice"),
        (SIX, "FAILED: 6 tests; at most 5 "),
        ("import nowhere\n" + UNSTEADY, "FAILED: not every test was run"),
    ],
    ids=["always", "one always, one once", "six", "not collected"],
)
def test_what_is_broken_stays_broken(project: Path, text: str, why: str):
    """Whatever else there is, and quickly where there is nothing to be tried."""
    (project / "test_it.py").write_text(text)
    code, said = tried(project)
    assert code == 1, said
    assert why in said
    assert "UNSTEADY" not in said
    assert not (project / "unsteady").exists()


def test_a_run_that_never_was_is_not_made_good(project: Path):
    """Nothing is remembered where pytest did not come to its end."""
    done = subprocess.run([".ci/again"], cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "not every test was run" in done.stdout
