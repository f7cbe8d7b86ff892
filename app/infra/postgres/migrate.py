"""`holdfast migrate`: bring the schema up to date. Safe to run twice, by many at once, and to be killed.

Each migration is one transaction with its row in `schema_migrations`; an advisory lock lets one process at a
time do them. Files are numbered, never changed once released (their checksums are compared), and only expand
what older processes use; a later release contracts. A database of another environment is not touched; one
that has no marker yet is given ENVIRONMENT's, where that is set. `--wait` changes nothing: it ends when
somebody else has done what this release needs, so that no process of a new release starts before its schema
is there.
"""

import asyncio
import hashlib
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import asyncpg

from app import config
from app.domain.errors import Unavailable
from app.infra.postgres import marker, partitions
from app.infra.postgres.command import run
from app.infra.postgres.pool import LoginRefusedError, login, unavailable_when_away
from app.usage import Parser

LOCK: Final = 0x686F6C64  # "hold": one number for everybody who migrates this database
CONNECT_TIMEOUT_S: Final = 5.0
WAIT_PAUSE_S: Final = 1.0
FOLDER: Final = Path(__file__).parent / "migrations"

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


class ChangedMigrationError(Exception):
    """A migration that was applied is not the one in this release."""


def migrations() -> list[tuple[int, str, str]]:
    """Every migration of this release: number, file name, SQL; in order."""
    files = sorted(FOLDER.glob("[0-9]*.sql"))
    return [(int(f.name.split("_", 1)[0]), f.name, f.read_text(encoding="utf-8")) for f in files]


async def migrate(dsn: str, environment: str = "") -> list[str]:
    """Apply what is missing; the names. `environment` marks the database, unless it is empty.

    Raises ElsewhereError (a database of another environment), Unavailable, WrongAddressError,
    ChangedMigrationError, and what PostgreSQL says to a migration that cannot be applied.
    """
    with unavailable_when_away():
        connection = await _connect(dsn)
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
            await marker.refuse(connection, environment, changes=True)
            done = await _apply(connection)
            if environment:
                await marker.write(connection, environment)
                await marker.refuse(connection, environment, changes=True)  # a mode may have been faster
            return done
        finally:
            await connection.close()


async def _apply(connection: asyncpg.Connection) -> list[str]:
    await connection.execute(_CREATE)
    rows = await connection.fetch("SELECT version, checksum FROM schema_migrations")
    applied = {row["version"]: row["checksum"] for row in rows}
    done = []
    for version, name, sql in migrations():
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        if version in applied:
            if applied[version] != checksum:
                msg = f"{name} was applied in another form; restore the released file"
                raise ChangedMigrationError(msg)
            continue
        async with connection.transaction():
            await connection.execute(worded(version, sql, connection.get_server_version().major))
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                version,
                name,
                checksum,
            )
        done.append(name)
    await _make_partitions(connection)
    return done


async def _make_partitions(connection: asyncpg.Connection) -> None:
    """Make the partitions of the next months, unless somebody is in the way: a consumer makes them, too."""
    if await connection.fetchval(partitions.SQL["there_is"]):
        with suppress(asyncpg.LockNotAvailableError):
            async with connection.transaction():
                await partitions.make(connection)


def worded(version: int, sql: str, server: int) -> str:
    """A migration in words that a server of this major version knows; what it makes is the same.

    PostgreSQL 15 cannot say how a column is stored where it makes the table, but afterwards.
    """
    if server >= 16 or version != 6:
        return sql
    created, altered = "bytea STORAGE EXTERNAL NOT NULL", "ALTER COLUMN hashes SET STORAGE EXTERNAL"
    return sql.replace(created, "bytea NOT NULL") + f"ALTER TABLE seal_leaves {altered};\n"


async def missing(dsn: str, environment: str = "") -> list[str]:
    """The migrations of this release that the database has not; the names. Raises as `migrate` does."""
    with unavailable_when_away():
        connection = await _connect(dsn)
        try:
            await marker.refuse(connection, environment, changes=False)
            rows = await connection.fetch("SELECT version FROM schema_migrations")
        except asyncpg.UndefinedTableError:
            rows = []
        finally:
            await connection.close()
    applied = {row["version"] for row in rows}
    return [name for version, name, _ in migrations() if version not in applied]


async def wait(dsn: str, seconds: float, environment: str = "") -> list[str]:
    """What is missing still: nothing, or so many seconds are over. Unavailable if nobody answers then."""
    until = time.monotonic() + seconds
    while True:
        try:
            left = await missing(dsn, environment)
        except LoginRefusedError:  # whoever starts us anew reads the Secret anew
            raise
        except Unavailable:
            if time.monotonic() >= until:
                raise
        else:
            if not left or time.monotonic() >= until:
                return left
        await asyncio.sleep(WAIT_PAUSE_S)


async def _connect(dsn: str) -> asyncpg.Connection:
    with login():
        return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)


def main(argv: list[str]) -> int:
    """Migrate the database that DATABASE_URL names."""
    parser = Parser(prog="holdfast migrate", description="Migrate the database.")
    about = "change nothing; wait until the schema is that of this release, at most so many seconds"
    parser.add_argument("--wait", type=float, metavar="SECONDS", help=about)
    options = parser.parse_args(argv)
    settings = config.load("tool")
    return run("migrate", _run(settings.database_url, settings.environment, options.wait))


async def _run(dsn: str, environment: str, seconds: float | None) -> int:
    try:
        if seconds is not None:
            left = await wait(dsn, seconds, environment)
            if left:
                return _say(f"holdfast migrate: still missing: {', '.join(left)}", 1)
        done = [] if seconds is not None else await migrate(dsn, environment)
    except (ChangedMigrationError, asyncpg.PostgresError) as error:
        return _say(f"holdfast migrate: {error}", 1)
    return _say(f"applied {', '.join(done)}" if done else "the schema is up to date", 0)


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr if code else sys.stdout)
    return code
