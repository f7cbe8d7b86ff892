"""Archiving a month of the database: written, read back, recorded; or found written, read back, recorded.

The events are read in one snapshot. If the process dies before the month is recorded, the next attempt finds
the manifest and only reads back, or no manifest and writes again.
"""

from datetime import UTC, date, datetime

import msgspec

from app.domain.seals import Seal
from app.infra.archive.months import moments, shown
from app.infra.archive.reading import ArchivedMonth, open_month
from app.infra.archive.store import ArchiveError, ArchiveStore, DamagedArchiveError, NotArchivedError
from app.infra.archive.writing import Progress, verify_month, write_month
from app.infra.postgres import archives
from app.infra.postgres.archives import ArchivedRow
from app.infra.postgres.pool import Connection


async def archive_month(
    connection: Connection, store: ArchiveStore, month: date, progress: Progress
) -> ArchivedRow:
    """Have a sealed month in an archive, verified and recorded; the record.

    Raises ArchiveError, and what PostgreSQL says.
    """
    seals = await archives.seals_of(connection, month)
    try:
        archived = await open_month(store, month)
    except NotArchivedError:
        archived = await _write(connection, store, month, seals, progress)
    else:
        try:
            await verify_month(archived, seals, progress)
        except DamagedArchiveError as error:
            where = f"{shown(month)} lies there already, written by somebody else or damaged"
            raise DamagedArchiveError(f"{where}; move it away to write it anew: {error}") from error
    manifest = archived.manifest
    row = ArchivedRow(
        month, store.url, manifest.events, manifest.size, archived.manifest_hash, datetime.now(UTC), None
    )
    await archives.record(connection, row)
    return row


async def _write(
    connection: Connection, store: ArchiveStore, month: date, seals: list[Seal], progress: Progress
) -> ArchivedMonth:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        events = archives.events_of(connection, *moments(month))
        return await write_month(store, month, seals, events, progress)


async def adopt_month(
    connection: Connection, store: ArchiveStore, known: ArchivedRow, progress: Progress
) -> ArchivedRow:
    """Record that a month that was dropped lies here, too: somebody moved or copied its archive.

    From then on it is read here. Raises ArchiveError where it is not here, or is not the same.
    """
    archived = await open_month(store, known.month, known.manifest_hash)
    await verify_month(archived, await archives.seals_of(connection, known.month), progress)
    row = msgspec.structs.replace(known, url=store.url, archived_at=datetime.now(UTC))
    await archives.record(connection, row)
    return row


async def fault_of(row: ArchivedRow) -> str | None:
    """What is wrong with a recorded month where it lies, read wholly now; None: nothing."""
    try:
        archived = await open_month(ArchiveStore(row.url), row.month, row.manifest_hash)
        await archived.check()
    except ArchiveError as error:
        return str(error)
    return None
