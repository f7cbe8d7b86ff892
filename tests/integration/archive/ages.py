"""Months of the past, and what is done with them: archived, dropped, looked at."""

import asyncio
import gzip
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec

from app.domain.chain import LinkedEvent
from app.infra.archive.archiving import archive_month, fault_of
from app.infra.archive.commands import GROUPS
from app.infra.archive.months import after
from app.infra.archive.store import ArchiveStore
from app.infra.postgres import archives, retention
from app.infra.postgres.archives import ArchivedRow
from app.infra.postgres.pool import Connection, Database

__all__ = ["GROUPS", "Ages", "day", "holdfast", "month"]

ROOT = Path(__file__).parents[3]
_NOW = datetime.now(UTC)


def day(number: int) -> date:
    """The first day of the month so many months from this one."""
    return after(_NOW.date().replace(day=1), number)


def month(number: int) -> datetime:
    """The moment when that month begins."""
    first = day(number)
    return datetime(first.year, first.month, 1, tzinfo=UTC)


class Ages:
    """The past of one database, and the folder of its archive."""

    def __init__(
        self,
        url: str,
        database: Database,
        connection: Connection,
        folder: Path,
        chains: dict[str, list[LinkedEvent]],
    ) -> None:
        self.url = url
        self.database = database
        self.connection = connection
        self.folder = folder
        self.chains = chains

    def events(self, number: int) -> list[LinkedEvent]:
        """What happened in the month so many months from this one, as it is archived."""
        begin, end = month(number), month(number + 1)
        every = (event for chain in self.chains.values() for event in chain)
        return sorted((e for e in every if begin <= e.time < end), key=lambda e: (e.subject, e.sequence))

    async def archive(self, *numbers: int, to: str | None = None) -> list[ArchivedRow]:
        """Have some months in the archive."""
        store = ArchiveStore(to or str(self.folder), make=True)
        return [await archive_month(self.connection, store, day(n), lambda *_: None) for n in numbers]

    async def drop(self, before: int) -> list[retention.Dropped]:
        """Drop what may be dropped of the months before one."""
        return [
            await retention.drop(self.connection, partition, GROUPS, fault_of)
            for partition in await retention.partitions_before(self.connection, day(before))
        ]

    async def recorded(self) -> dict[date, bool]:
        """The months on record, and whether they are only in the archive."""
        return {row.month: row.dropped_at is not None for row in await archives.archives(self.connection)}

    async def held(self) -> int:
        """How many events the database holds."""
        return int(await self.connection.fetchval("SELECT count(*) FROM events"))

    def file(self, number: int) -> Path:
        """A month's events in the archive."""
        return self.folder / f"events-{day(number):%Y-%m}.ndjson.gz"

    def manifest(self, number: int) -> Path:
        """A month's manifest."""
        return self.folder / f"events-{day(number):%Y-%m}.json"

    def lines(self, number: int) -> list[dict]:
        """The archived lines of a month, as any program reads them."""
        return [msgspec.json.decode(line) for line in gzip.open(self.file(number), "rb")]


async def holdfast(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`holdfast` as a process."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "app", *arguments],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "DATABASE_URL": url, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
