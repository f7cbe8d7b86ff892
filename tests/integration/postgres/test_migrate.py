"""Migrating: twice, by many at once, killed in the middle, and when it cannot be."""

import asyncio
import os
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.domain.errors import Unavailable
from app.infra.postgres import migrate as module
from app.infra.postgres.migrate import ChangedMigrationError, migrate, migrations
from app.infra.postgres.pool import Connection
from tests.integration.postgres.interference import BLOCKED, begun

ROOT = Path(__file__).parents[3]
NAMES = [name for _, name, _ in migrations()]
TABLES = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"


def holdfast_migrate(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`holdfast migrate` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "app", "migrate", *arguments],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "DATABASE_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Connection]:
    """A connection to a database with nothing in it."""
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def watcher(empty_database_url: str) -> AsyncIterator[Connection]:
    """Another one, to watch and to kill."""
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


async def test_the_first_time_makes_the_schema_and_the_second_changes_nothing(empty_database_url: str, empty):
    """What was done is written down, with a checksum of what was done."""
    assert await migrate(empty_database_url) == NAMES
    tables = await empty.fetchval(TABLES)
    assert await migrate(empty_database_url) == []
    assert await empty.fetchval(TABLES) == tables
    rows = await empty.fetch("SELECT version, name FROM schema_migrations ORDER BY version")
    assert [(row["version"], row["name"]) for row in rows] == [(n, name) for n, name, _ in migrations()]


async def test_five_at_once_do_it_once(empty_database_url: str):
    """Five pods start with the new release at the same moment."""
    done = await asyncio.gather(*(migrate(empty_database_url) for _ in range(5)))
    assert sorted(done) == sorted([NAMES, [], [], [], []])


async def test_whoever_is_killed_in_the_middle_leaves_nothing_half_done(
    empty_database_url: str, empty: Connection, watcher: Connection
):
    """A migration is one transaction, and its lock dies with it: the next one does it all."""
    async with empty.transaction():
        # Somebody makes one of our tables at the same time: the migration waits for him, in its middle.
        await empty.execute("CREATE TABLE daily_summary (x int)")
        waiting = await begun(watcher, migrate(empty_database_url))
        await watcher.execute(f"SELECT pg_terminate_backend(pid) FROM ({BLOCKED}) b")
        with pytest.raises(Unavailable):
            await waiting
        await empty.execute("DROP TABLE daily_summary")
    assert await empty.fetchval(TABLES) == 1  # the list of migrations, which is empty
    assert await migrate(empty_database_url) == NAMES


async def test_a_migration_that_was_changed_after_its_release_is_refused(empty_database_url: str, empty):
    """The schema would not be the one that this program was tested with."""
    await migrate(empty_database_url)
    await empty.execute("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1")
    with pytest.raises(ChangedMigrationError, match=r"0001_orders\.sql"):
        await migrate(empty_database_url)
    done = await asyncio.to_thread(holdfast_migrate, empty_database_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "0001_orders.sql was applied in another form" in done.stderr


async def test_what_a_newer_release_has_applied_does_no_harm(empty_database_url: str, empty):
    """While it is rolled out, and when it is rolled back, the older one starts too."""
    await migrate(empty_database_url)
    await empty.execute("INSERT INTO schema_migrations VALUES (9999, '9999_future.sql', 'x')")
    assert await migrate(empty_database_url) == []


@pytest.mark.parametrize("breaks", ["SELECT 1 / 0", "ALTER TABLE schema_migrations DROP COLUMN checksum"])
async def test_a_broken_migration_is_not_applied_in_part(
    empty_database_url: str, empty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str
):
    """It fails, or cannot be written down: those before it stay, it leaves nothing, those after it wait."""
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (x int);")
    (tmp_path / "0002_two.sql").write_text(f"CREATE TABLE two (x int); {breaks};")
    (tmp_path / "0003_three.sql").write_text("CREATE TABLE three (x int);")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    with pytest.raises((asyncpg.DivisionByZeroError, asyncpg.UndefinedColumnError)):
        await migrate(empty_database_url)
    rows = await empty.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    assert [row["tablename"] for row in rows] == ["one", "schema_migrations"]
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (x int);")
    assert await migrate(empty_database_url) == ["0002_two.sql", "0003_three.sql"]


def test_migrations_are_numbered_without_gaps_or_doubles():
    """Two branches that add the same number are noticed here."""
    assert [number for number, _, _ in migrations()] == list(range(1, len(migrations()) + 1))


async def test_the_command_says_what_it_did(empty_database_url: str):
    """And the second time that there was nothing to do."""
    first = await asyncio.to_thread(holdfast_migrate, empty_database_url)
    second = await asyncio.to_thread(holdfast_migrate, empty_database_url)
    assert (first.returncode, first.stdout, first.stderr) == (0, f"applied {', '.join(NAMES)}\n", "")
    assert (second.returncode, second.stdout, second.stderr) == (0, "the schema is up to date\n", "")


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/no_such_database"},
        {"netloc": "holdfast:hunter2@{host}"},
        {"netloc": "hunter2:hunter2@{host}"},
        {"query": "sslmode=hunter2"},
        {"netloc": "holdfast:hunter2@127.0.0.1:1,127.0.0.1:hunter2"},
    ],
    ids=["database", "password", "user", "option", "port"],
)
async def test_an_address_that_cannot_be_right_is_wrong_configuration(empty_database_url: str, change: dict):
    """Exit 78, one line, and nothing of the password."""
    parts = urlsplit(empty_database_url)
    change = {key: value.format(host=f"{parts.hostname}:{parts.port}") for key, value in change.items()}
    done = await asyncio.to_thread(holdfast_migrate, parts._replace(**change).geturl())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert "DATABASE_URL must " in done.stderr
    assert "hunter2" not in done.stderr.replace('user "hunter2"', "")


async def test_waiting_changes_nothing_and_says_what_is_missing(empty_database_url: str, empty):
    """Somebody else migrates; who only waits and waits in vain fails."""
    done = await asyncio.to_thread(holdfast_migrate, empty_database_url, "--wait", "0")
    assert (done.returncode, done.stderr) == (1, f"holdfast migrate: still missing: {', '.join(NAMES)}\n")
    assert await empty.fetchval(TABLES) == 0


async def test_waiting_ends_when_somebody_else_has_migrated(empty_database_url: str):
    """A process of a new release starts as soon as its schema is there, and not before."""
    waiting = asyncio.create_task(module.wait(empty_database_url, 60))
    assert not (await asyncio.wait([waiting], timeout=0.2))[0]
    await migrate(empty_database_url)
    assert await waiting == []


async def test_waiting_for_a_server_that_never_answers_ends_as_unreachable():
    """69, as migrating does; until then it is asked again."""
    with pytest.raises(Unavailable):
        await module.wait("postgresql://holdfast@127.0.0.1:1/holdfast", 0)


async def test_postgresql_15_is_told_the_same_in_other_words(
    empty_database_url: str, empty: Connection, monkeypatch: pytest.MonkeyPatch
):
    """It cannot say how a column is stored where it makes the table. What is made is the same."""
    told = [(version, name, module.worded(version, sql, 15)) for version, name, sql in migrations()]
    assert [sql for _, _, sql in told if "STORAGE EXTERNAL NOT NULL" in sql] == []
    monkeypatch.setattr(module, "migrations", lambda: told)
    await migrate(empty_database_url)
    stored = (
        "SELECT attstorage FROM pg_attribute WHERE attrelid = 'seal_leaves'::regclass AND attname = 'hashes'"
    )
    assert await empty.fetchval(stored) == b"e"


@pytest.mark.parametrize("text", ["", "ord_01JZ", "Tasse für Öl ☕", "x" * 300])
async def test_servers_older_than_18_compute_the_same_shards(empty_database_url: str, empty, text: str):
    """By a function of ours, which newer ones do not look at."""
    await migrate(empty_database_url)
    assert await empty.fetchval("SELECT public.crc32(convert_to($1, 'UTF8'))", text) == zlib.crc32(
        text.encode()
    )
