"""Which months of events lie in which archive, and what of a subject lies nowhere else.

A month is recorded when it has been written, read back and compared. If the process dies before that, the
month is not archived as far as PostgreSQL knows, and archiving it again finds what is there.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime, timedelta
from typing import Final

import msgspec

from app.domain.chain import LinkedEvent
from app.domain.seals import Seal
from app.infra.postgres.partitions import not_before
from app.infra.postgres.pool import Connection
from app.infra.postgres.statements import statements

SQL: Final = statements("archives")

_PREFETCH: Final = 2000
_SORT_TIMEOUT_S: Final = 3600.0
"""The first rows come when PostgreSQL has sorted the month."""
_SORT_MEMORY: Final = "64MB"
_DAY: Final = timedelta(days=1)


class ArchivedRow(msgspec.Struct, frozen=True):
    """A month in an archive, of `size` bytes there; `dropped_at`: since then it is only there."""

    month: date
    url: str
    events: int
    size: int
    manifest_hash: bytes
    archived_at: datetime
    dropped_at: datetime | None


async def sealed_months(connection: Connection) -> list[date]:
    """The months that are over and sealed, their first days; the first one may begin with the first event."""
    row = await connection.fetchrow(SQL["sealed"])
    if row is None or row["first"] is None:
        return []
    months = []
    month: date = row["first"].replace(day=1)
    while (following := (month + 31 * _DAY).replace(day=1)) <= row["last"] + _DAY:
        months.append(month)
        month = following
    return months


async def seals_of(connection: Connection, month: date) -> list[Seal]:
    """The seals of a month's days."""
    end = (month + 31 * _DAY).replace(day=1)
    return [Seal(*row) for row in await connection.fetch(SQL["seals"], month, end)]


async def events_of(connection: Connection, begin: datetime, end: datetime) -> AsyncIterator[LinkedEvent]:
    """What happened in a span of time, by subject (code points) and sequence. Needs a transaction."""
    await connection.execute(f"SET LOCAL work_mem = '{_SORT_MEMORY}'")
    rows = connection.cursor(SQL["events"], begin, end, prefetch=_PREFETCH, timeout=_SORT_TIMEOUT_S)
    async for row in rows:
        yield LinkedEvent(*row)


async def record(connection: Connection, row: ArchivedRow) -> None:
    """A month lies in an archive and was verified there."""
    await connection.execute(
        SQL["record"], row.month, row.url, row.events, row.size, row.manifest_hash, row.dropped_at
    )


async def archives(connection: Connection) -> list[ArchivedRow]:
    """Every month in every archive."""
    return [ArchivedRow(*row) for row in await connection.fetch(SQL["all"])]


async def here_again(connection: Connection, month: date) -> None:
    """A month's events are in the database, too."""
    await connection.execute(SQL["here_again"], month)


async def dropped_months(connection: Connection) -> list[ArchivedRow]:
    """The months that lie in archives only, the oldest first."""
    return [ArchivedRow(*row) for row in await connection.fetch(SQL["dropped"])]


async def dropped_until(connection: Connection) -> datetime | None:
    """Events before this moment are in archives only; None: all are here."""
    moment: datetime | None = await connection.fetchval(SQL["dropped_until"])
    return moment


async def archived_through(connection: Connection, subjects: Sequence[str]) -> dict[str, int]:
    """For subjects whose first events are in archives only: the sequence of the last of these."""
    rows = await connection.fetch(SQL["archived_through"], subjects, not_before(*subjects))
    return {row["subject"]: row["sequence"] for row in rows}


async def orders_of(connection: Connection, begin: datetime, end: datetime) -> int:
    """How many orders were made in a span of time."""
    return int(await connection.fetchval(SQL["orders_of"], begin, end))
