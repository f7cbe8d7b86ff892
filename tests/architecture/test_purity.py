"""What must give the same answer twice reads no clock, no randomness and no environment.

Workflows are replayed, and the modules they import are passed through the workflow sandbox, whose own guard
does not see them; so the guard is here.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.sources import imported, modules, shown, tree, used_names

PURE = ["domain", "contracts", "workers/workflows", "workers/activities"]

IMPURE = re.compile(
    r"""(time|random|secrets)(\..*)?
    | datetime\.(datetime\.(now|utcnow|today)|date\.today)
    | uuid\.(uuid1|uuid4|uuid6|uuid7|getnode)
    | os\.(environ|environb|getenv|getenvb|urandom|getrandom|getpid|times)(\..*)?""",
    re.VERBOSE,
)
ENVIRONMENT = re.compile(r"os\.(environ|environb|getenv|getenvb|putenv|unsetenv)(\..*)?")


def offences(syntax: ast.AST, forbidden: re.Pattern[str]) -> list[tuple[str, int]]:
    """The forbidden names in a file, imported or used, each with its line."""
    return sorted(
        {(name, line) for name, line in [*imported(syntax), *used_names(syntax)] if forbidden.fullmatch(name)}
    )


@pytest.mark.parametrize("path", modules(*PURE), ids=shown)
def test_pure_modules_read_no_clock_no_randomness_and_no_environment(path: Path):
    """Domain, contracts, workflows and activities are given times, ids and settings, never fetch them."""
    assert offences(tree(path), IMPURE) == []


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if not shown(path).startswith(("app/config.py", "app/dev/"))],
    ids=shown,
)
def test_only_the_settings_and_the_development_stack_read_the_environment(path: Path):
    """app/config.py is the only reader; app/dev builds environments for its children."""
    assert offences(tree(path), ENVIRONMENT) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import time\ntime.time()", "time.time"),
        ("from time import monotonic as tick\ntick()", "time.monotonic"),
        ("import datetime as dt\ndt.datetime.now(dt.UTC)", "datetime.datetime.now"),
        ("from datetime import datetime\ndatetime.utcnow()", "datetime.datetime.utcnow"),
        ("from datetime import date\ntoday = date.today", "datetime.date.today"),
        ("def f():\n    from random import choice\n    return choice('ab')", "random.choice"),
        ("import secrets", "secrets"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4"),
        ("import os\nos.environ['A']", "os.environ"),
        ("from os import environ\nenviron.get('A')", "os.environ.get"),
        ("import os.path\nos.getenv('A')", "os.getenv"),
    ],
)
def test_the_guard_sees_through_aliases(code: str, found: str):
    """A guard that a renamed import gets past would guard nothing."""
    assert found in [name for name, _ in offences(ast.parse(code), IMPURE)]


@pytest.mark.parametrize(
    "code",
    [
        "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)",
        "from datetime import timedelta\ntimedelta(seconds=1)",
        "def f(time, random):\n    return time.now(random.choice)",
        "from temporalio import workflow\nworkflow.now(); workflow.random(); workflow.uuid4()",
        "import os.path\nos.path.join('a', 'b')",
    ],
)
def test_the_guard_lets_what_is_pure_pass(code: str):
    """Conversions, arguments of the same name and the workflow's own clock are allowed."""
    assert offences(ast.parse(code), IMPURE) == []
