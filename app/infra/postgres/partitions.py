"""The partitions of `events`: one a month in UTC, made ahead, with a net for what no month was made for.

An insert never fails for want of a partition: it falls into the net, and is moved when the month is made,
which is one transaction. Nobody deletes an event for that: the net is replaced as a whole. If the process
dies here, nothing happened, and the next one does it.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from app.domain.ids import made_at
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("partitions")

MONTHS_AHEAD: Final = 3
LOCK_TIMEOUT_MS: Final = 500
"""All who come later wait behind whoever waits for a partition: so nobody waits long, but comes again."""
ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER: Final = timedelta(days=1)

_MOVE_TIMEOUT_S: Final = 900.0


class Partition(msgspec.Struct, frozen=True):
    """What holds the events from `begins` up to `ends`, without it; the net has neither."""

    name: str
    begins: datetime | None
    ends: datetime | None


def not_before(*subjects: str) -> datetime:
    """Since when there may be events of any of these subjects.

    An order's id says when it was made, so what is older is not looked for in the partitions of older months.
    """
    times = [made_at(subject) for subject in subjects]
    known = [at for at in times if at is not None]
    return min(known) - CLOCKS_DIFFER if known and len(known) == len(times) else ALWAYS


class PostgresPartitions:
    """The partitions, for whoever makes them."""

    def __init__(self, database: Database) -> None:
        """Work on a pool."""
        self._database = database

    async def make(self) -> list[str]:
        """Make what is missing of this month and the next ones; the names. One process at a time does it.

        Raises Unavailable, also when somebody holds a partition that is needed: nothing was done then.
        """
        async with self._database.transaction() as connection:
            return await make(connection)


async def make(connection: Connection) -> list[str]:
    """In the caller's transaction: make what is missing; the names."""
    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    rows = await connection.fetch(SQL["make"], MONTHS_AHEAD, timeout=_MOVE_TIMEOUT_S)
    return [row["name"] for row in rows]


async def begin(connection: Connection, month: date) -> str:
    """In the caller's transaction: a table for a month that is no partition yet; its name."""
    name = f"events_{month:%Y_%m}"
    await connection.execute(SQL["begin"], name)
    return name


async def attach(connection: Connection, name: str, begins: datetime, ends: datetime) -> None:
    """In the caller's transaction: make a table a partition. Raises LockNotAvailableError."""
    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
    bounds = f"FROM ('{begins.isoformat()}') TO ('{ends.isoformat()}')"
    await connection.execute(f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES {bounds}")


async def partitions(connection: Connection) -> list[Partition]:
    """All partitions, the oldest first, the net at the end."""
    return [_partition(row) for row in await connection.fetch(SQL["all"])]


def _partition(row: asyncpg.Record) -> Partition:
    begins: datetime | None = row["begins"]
    if begins is not None and begins.tzinfo is None:  # minus infinity, in the words of the driver
        begins = begins.replace(tzinfo=UTC)
    return Partition(row["name"], begins, row["ends"])
