"""What keeps a command from its database is the same line and the same exit code for all commands."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest

from app import __main__ as program
from app.dev.servers import EmbeddedPostgres
from tests.integration.postgres.roles import PASSWORD, Role, role_of_own
from tests.stack import Postgres

COMMANDS: Final = (
    ("migrate",),
    ("migrate", "--wait", "60"),
    ("audit", "verify"),
    ("events", "list"),
    ("events", "drop", "--before", "2020-01", "--yes"),
    ("keys", "list"),
    ("keys", "create", "--name", "x"),
    ("dlq", "list"),
    ("dlq", "retry", "--all"),
    ("mails", "list"),
    ("replay", "list"),
    ("replay", "--handler", "analytics"),
    ("seed",),
)
"""Every command that asks PostgreSQL; some twice, where they begin differently."""
_MIGRATING: Final = "migrate"
REFUSED: Final = "DATABASE_URL must name a database and a user that may connect to it"
_NONE: Final = "nobody-has-this-one"

every_command = pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)


@pytest.fixture(scope="module")
async def role(embedded_postgres: EmbeddedPostgres) -> AsyncIterator[Role]:
    """A role and its empty database."""
    async with role_of_own(Postgres(embedded_postgres.dsn), "commands") as role:
        yield role


async def fails(patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str, url: str):
    """Run a command as the program does: its exit code, and its one line."""
    patch.delenv("ENVIRONMENT", raising=False)
    patch.setenv("DATABASE_URL", url)
    patch.setattr("sys.argv", ["holdfast", *arguments])
    code = await asyncio.to_thread(program.main)
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1), said
    assert _NONE not in said.err
    return code, said.err.rstrip("\n")


@every_command
async def test_a_login_that_is_refused(
    arguments: tuple[str, ...], role: Role, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """78, and what the server says."""
    found = await fails(monkeypatch, capfd, *arguments, url=role.with_login(_NONE))
    assert found == (78, f'holdfast: {REFUSED}: password authentication failed for user "{role.name}"')
    found = await fails(monkeypatch, capfd, *arguments, url=role.with_login(PASSWORD, database="nowhere"))
    assert found == (78, f'holdfast: {REFUSED}: database "nowhere" does not exist')


@every_command
async def test_an_address_that_cannot_be_one(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """78, and nothing of it is repeated: it may be the password that is wrong."""
    url = f"postgresql://holdfast:{_NONE}@127.0.0.1:1/x?sslmode={_NONE}"
    code, line = await fails(monkeypatch, capfd, *arguments, url=url)
    assert code == 78
    assert line.startswith("holdfast: DATABASE_URL must be ")


@pytest.mark.parametrize("arguments", [one for one in COMMANDS if "--wait" not in one], ids=" ".join)
async def test_a_server_that_is_not_there(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """69."""
    url = f"postgresql://holdfast:{_NONE}@127.0.0.1:1/x"
    code, line = await fails(monkeypatch, capfd, *arguments, url=url)
    assert code == 69
    assert line.startswith(f"holdfast {arguments[0]}: PostgreSQL (DATABASE_URL) is unreachable or busy: ")


@pytest.mark.parametrize("arguments", [one for one in COMMANDS if one[0] != _MIGRATING], ids=" ".join)
async def test_a_database_with_nothing_in_it(
    arguments: tuple[str, ...], role: Role, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """1, and what to do."""
    code, line = await fails(monkeypatch, capfd, *arguments, url=role.url)
    assert code == 1
    assert line.startswith(f"holdfast {arguments[0]}: relation ")
    assert line.endswith("does not exist; run holdfast migrate first")
