"""The program's door: modes, commands, exit codes, and one line where something is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import __main__ as program
from tests.unit.test_config import ENVIRONMENT

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m app` as a process, with these variables and no others of ours."""
    env = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with this code and one line on stderr that holds these words."""
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("mode", [{}, {"MODE": ""}, {"MODE": "gatekeeper"}])
def test_no_mode_or_an_unknown_one_is_wrong_usage(mode: dict[str, str]):
    """Exit 64, and the modes there are."""
    assert_one_line(run(**mode), 64, "MODE", "gateway, worker, consumer")


@pytest.mark.parametrize("mode", ["gateway", "worker", "consumer"])
def test_a_mode_without_its_settings_ends_at_once(mode: str):
    """Exit 78, and the first thing that is missing."""
    assert_one_line(run(MODE=mode), 78, "ENVIRONMENT is missing")


def test_a_wrong_setting_ends_a_mode_before_it_calls_anybody():
    """Exit 78; no server was started, and none was needed."""
    done = run(**{**ENVIRONMENT, "MODE": "worker", "PORT": "http"})
    assert_one_line(done, 78, "PORT must be a whole number from 1 to 65535, not 'http'")


def test_a_secret_is_never_printed():
    """Not even the part that is right."""
    done = run(**{**ENVIRONMENT, "MODE": "gateway", "DATABASE_URL": "postgresql://u:hunter2@h:x/d"})
    assert_one_line(done, 78, "DATABASE_URL must be a URL that starts with postgresql://")
    assert "hunter2" not in done.stderr


def test_a_live_key_in_development_ends_the_worker():
    """Real cards are charged in production only."""
    done = run(**{**ENVIRONMENT, "MODE": "worker", "ENVIRONMENT": "dev", "STRIPE_API_KEY": "sk_live_hunter2"})
    assert_one_line(done, 78, "STRIPE_API_KEY must be a test key")
    assert "hunter2" not in done.stderr


def test_an_unknown_command_is_wrong_usage():
    """Exit 64, and where to look."""
    assert_one_line(run("migrat"), 64, "'migrat'", "--help")


def test_help_names_every_command():
    """On stdout, exit 0."""
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name in program.COMMANDS:
        assert f"  {name} " in done.stdout


def test_migrating_without_a_database_is_wrong_configuration():
    """Exit 78, like any missing setting."""
    assert_one_line(run("migrate"), 78, "DATABASE_URL is missing")


def test_migrating_a_database_that_is_away_says_so():
    """Exit 69: a needed server is unreachable. Nothing listens at port 1."""
    assert_one_line(
        run("migrate", DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/d"), 69, "postgres is unavailable"
    )
