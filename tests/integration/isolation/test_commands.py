"""`holdfast migrate` marks a database; commands are held to the ENVIRONMENT that they are told."""

import asyncio
from typing import Final

import pytest

from app import __main__ as program
from app.dev.seed import KEY_VARIABLE
from app.infra.markers import ElsewhereError
from app.infra.postgres.marker import complaint
from app.infra.postgres.migrate import migrate, wait
from tests.integration.isolation.other import connected, mark_database, marker_of_database
from tests.stack import TEMPLATE, Postgres

CHANGING: Final = (
    ("migrate",),
    ("seed",),
    ("keys", "create", "--name", "x"),
    ("keys", "revoke", "key_x"),
    ("dlq", "retry", "--all"),
    ("dlq", "discard", "--all"),
    ("mails", "retry", "--all"),
    ("replay", "--handler", "order-documents"),
    ("replay", "cancel", "rpl_x"),
    ("events", "archive", "--to", "file:///nonexistent"),
    ("events", "drop", "--before", "2020-01", "--yes"),
)
READING: Final = (
    ("keys", "list"),
    ("dlq", "list"),
    ("mails", "list"),
    ("replay", "list"),
    ("events", "list"),
)


@pytest.fixture(scope="module")
async def production(postgres_server: Postgres) -> str:
    """The database of production, in which nobody changes anything."""
    url = await postgres_server.create("production", TEMPLATE)
    await mark_database(url, "production")
    return url


@pytest.fixture
def in_production(monkeypatch: pytest.MonkeyPatch, production: str) -> pytest.MonkeyPatch:
    """The environment of a command: only that database is named."""
    monkeypatch.delenv("ENVIRONMENT", raising=False)
    monkeypatch.setenv("DATABASE_URL", production)
    return monkeypatch


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, database_url: str) -> pytest.MonkeyPatch:
    """The environment of a command: only the database is named."""
    monkeypatch.delenv("ENVIRONMENT", raising=False)
    monkeypatch.setenv("DATABASE_URL", database_url)
    return monkeypatch


async def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command as the program does, beside this loop; its exit code."""
    monkeypatch.setattr("sys.argv", ["holdfast", *arguments])

    def main() -> int:
        try:
            return program.main()
        except SystemExit as left:
            return int(left.code or 0)

    return await asyncio.to_thread(main)


@pytest.mark.parametrize("arguments", [*CHANGING, *READING, ("migrate", "--wait", "1")], ids=" ".join)
async def test_a_command_of_dev_does_nothing_in_production(
    arguments: tuple[str, ...],
    in_production: pytest.MonkeyPatch,
    production: str,
    capsys: pytest.CaptureFixture[str],
):
    """78, and one line that names the setting."""
    in_production.setenv("ENVIRONMENT", "dev")
    assert await run(in_production, *arguments) == 78
    said = capsys.readouterr().err
    assert said.startswith("holdfast: DATABASE_URL must lead to the database of ENVIRONMENT 'dev'")
    assert said.count("\n") == 1
    assert await marker_of_database(production) == "production"


@pytest.mark.parametrize("arguments", [one for one in CHANGING if one != ("seed",)], ids=" ".join)
async def test_nobody_changes_production_by_the_way(
    arguments: tuple[str, ...],
    in_production: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Whoever has only an address in the shell has to say ENVIRONMENT=production, too."""
    assert await run(in_production, *arguments) == 78
    said = capsys.readouterr().err
    assert said.startswith("holdfast: ENVIRONMENT must be 'production' to change this")
    assert ("is recorded" in said) == ("--handler" in arguments)  # it looks as if it changed nothing


@pytest.mark.parametrize("environment", ["", "production"])
async def test_nobody_seeds_production(
    environment: str, in_production: pytest.MonkeyPatch, production: str, capsys: pytest.CaptureFixture[str]
):
    """Not even who says so: the key that it would make is known to others."""
    in_production.setenv("ENVIRONMENT", environment)
    in_production.setenv(KEY_VARIABLE, "hf_dev_development")
    assert await run(in_production, "seed") == 78
    said = capsys.readouterr().err
    assert (said.count("\n"), "not for production" in said) == (1, True)
    async with connected(production) as connection:
        for table in ("api_keys", "products", "events"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_production_seeds_no_database_without_a_marker(told: pytest.MonkeyPatch, database_url: str):
    """It may be the one that production is about to take."""
    told.setenv("ENVIRONMENT", "production")
    assert await run(told, "seed") == 78
    async with connected(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM products") == 0


async def test_staging_may_be_seeded(told: pytest.MonkeyPatch, database_url: str):
    """Who says whose it is, or nothing."""
    await mark_database(database_url, "staging")
    assert await run(told, "seed") == 0
    told.setenv("ENVIRONMENT", "staging")
    assert await run(told, "seed") == 0


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
async def test_production_may_be_read_without_saying_so(
    arguments: tuple[str, ...], in_production: pytest.MonkeyPatch
):
    """It harms nobody."""
    assert await run(in_production, *arguments) == 0


@pytest.mark.parametrize("environment", ["", "production"])
async def test_commands_mark_nothing(environment: str, told: pytest.MonkeyPatch, database_url: str):
    """Only `migrate` and the modes do."""
    if environment:
        told.setenv("ENVIRONMENT", environment)
    assert await run(told, "dlq", "discard", "--all") == 0
    assert await marker_of_database(database_url) is None


async def test_migrate_marks_a_database(told: pytest.MonkeyPatch, database_url: str):
    """With the ENVIRONMENT that it is told; a second time it changes nothing."""
    told.setenv("ENVIRONMENT", "staging")
    assert [await run(told, "migrate") for _ in range(2)] == [0, 0]
    assert await marker_of_database(database_url) == "staging"


async def test_migrate_without_an_environment_leaves_a_database_unmarked(
    told: pytest.MonkeyPatch, database_url: str
):
    """Nobody has said whose it is."""
    assert await run(told, "migrate") == 0
    assert await marker_of_database(database_url) is None


async def test_no_migration_is_applied_to_the_database_of_another_environment(database_url: str):
    """One that is missing stays missing."""
    await mark_database(database_url, "production")
    async with connected(database_url) as connection:
        await connection.execute("DELETE FROM schema_migrations WHERE version = 1")
        with pytest.raises(ElsewhereError):
            await migrate(database_url, "dev")
        assert await connection.fetchval("SELECT count(*) FROM schema_migrations WHERE version = 1") == 0


async def test_waiting_for_the_schema_of_another_environment_ends(database_url: str):
    """It would never be ours."""
    await mark_database(database_url, "production")
    with pytest.raises(ElsewhereError):
        await wait(database_url, 60, "dev")


@pytest.mark.parametrize(
    ("found", "told", "changes", "is_refused"),
    [
        (None, "dev", True, False),
        (None, "", True, False),
        ("dev", "dev", True, False),
        ("production", "production", True, False),
        ("production", "", False, False),
        ("staging", "", True, False),
        ("production", "", True, True),
        ("production", "dev", False, True),
        ("dev", "production", True, True),
        ("staging", "dev", True, True),
    ],
)
def test_who_may_do_what(found: str | None, told: str, changes: bool, is_refused: bool):
    """Another environment: nothing. None: everything, but changes to production."""
    assert (complaint(found, told, changes=changes) is not None) == is_refused
