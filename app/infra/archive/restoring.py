"""Putting a month back into the database, from where it was archived.

One transaction: the month is there with all its events, or not at all. The archive keeps it, too. The newest
month that was dropped comes first: what is here never has a hole. If the process dies here, nothing has
happened.
"""

from datetime import date
from typing import Final

import asyncpg
import msgspec

from app.infra.archive.months import moments, shown
from app.infra.archive.reading import open_month
from app.infra.archive.store import ArchiveError, ArchiveStore
from app.infra.archive.writing import Progress, verify_month
from app.infra.postgres import archives, partitions
from app.infra.postgres.archives import ArchivedRow
from app.infra.postgres.pool import Connection

_COLUMNS: Final = (
    *("subject", "sequence", "type", "time", "correlation_id", "traceparent"),
    *("data", "previous_hash", "hash"),
)


class NotRestoredError(ArchiveError):
    """It is not the turn of this month, or it is here."""


async def restore_month(
    connection: Connection, month: date, url: str | None, progress: Progress
) -> ArchivedRow:
    """Put a month back, from `url` or from where it was archived last; its record, as it was.

    Raises ArchiveError, LockNotAvailableError (somebody is in the way: try again), and what PostgreSQL says.
    """
    dropped = await archives.dropped_months(connection)
    row = next((row for row in dropped if row.month == month), None)
    if row is None:
        raise NotRestoredError(f"{shown(month)} is not among the months that were dropped")
    if row is not dropped[-1]:
        raise NotRestoredError(f"{shown(dropped[-1].month)} has to come back first")
    archived = await open_month(ArchiveStore(url or row.url), month, row.manifest_hash)
    await verify_month(archived, await archives.seals_of(connection, month), progress)
    async with connection.transaction():
        try:
            name = await partitions.begin(connection, month)
        except asyncpg.DuplicateTableError:
            raise NotRestoredError(f"there are other events of {shown(month)} here by now") from None
        done = 0
        async for block in archived.blocks():
            records = [msgspec.structs.astuple(event) for event in block]
            await connection.copy_records_to_table(name, records=records, columns=_COLUMNS)
            done += len(block)
            progress("putting back", done)
        await partitions.attach(connection, name, *moments(month))
        await archives.here_again(connection, month)
    return row
