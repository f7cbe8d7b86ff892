"""Dropping partitions of events: only what is sealed, lies in an archive, and had its effect everywhere.

A partition leaves in one transaction, in which nobody can write to it any more and everything but the
archive is looked at again; the archive's files never change. If the process dies here, the partition is
there with all its events, or it is gone and on record as gone. Whoever reads meanwhile waits a second at
most: if it takes longer to have the table to oneself, it is let go, and tried again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from app.infra.postgres import archives
from app.infra.postgres.archives import ArchivedRow
from app.infra.postgres.partitions import Partition, partitions
from app.infra.postgres.pool import Connection
from app.infra.postgres.statements import statements

SQL: Final = statements("retention")

MONTHS_KEPT_MIN: Final = 2
"""So many months must have passed since a month ended before it is dropped."""
LOCK_TIMEOUT_MS: Final = 1000
ATTEMPTS_MAX: Final = 30
PAUSE_S: Final = 1.0

_LONGEST_MONTH: Final = timedelta(days=31)

Verify = Callable[[ArchivedRow], Awaitable[str | None]]
"""Looks at an archived month where it lies; what is wrong with it, or None."""


class RefusedError(Exception):
    """A partition cannot be dropped; `reasons` say why, for people."""

    def __init__(self, partition: Partition, reasons: Sequence[str]) -> None:
        """Keep this partition for these reasons."""
        super().__init__(f"{partition.name} is kept: {'; '.join(reasons)}")
        self.partition = partition
        self.reasons = tuple(reasons)


class Dropped(msgspec.Struct, frozen=True):
    """A partition that was dropped, or would be."""

    partition: str
    months: tuple[date, ...]
    events: int
    archives: tuple[str, ...]


async def partitions_before(connection: Connection, month: date) -> list[Partition]:
    """The partitions that hold nothing since the beginning of a month, the oldest first."""
    moment = datetime(month.year, month.month, 1, tzinfo=UTC)
    return [p for p in await partitions(connection) if p.ends is not None and p.ends <= moment]


async def may_drop(
    connection: Connection, partition: Partition, groups: Sequence[str], verify: Verify
) -> Dropped:
    """What dropping it would drop. Reads each archived month wholly. Raises RefusedError."""
    reasons = await _too_young(connection, partition)
    rows = await _archived(connection, partition)
    missing = [month for month in await _months(connection, partition) if month not in rows]
    reasons += [f"{month:%Y-%m} is in no archive" for month in missing]
    where: list[str] = []
    for month, places in sorted(rows.items()):
        wrong = []
        for row in places:
            fault = await verify(row)
            if fault is None:
                where.append(row.url)
                break
            wrong.append(fault)
        else:
            reasons.append(f"{month:%Y-%m} cannot be read back: {'; '.join(wrong)}")
    reasons += await _needed(connection, partition, groups, [places[0] for places in rows.values()])
    if reasons:
        raise RefusedError(partition, reasons)
    return Dropped(
        partition.name,
        tuple(sorted(rows)),
        sum(places[0].events for places in rows.values()),
        tuple(dict.fromkeys(where)),
    )


async def drop(
    connection: Connection, partition: Partition, groups: Sequence[str], verify: Verify
) -> Dropped:
    """Drop it. Raises RefusedError, and LockNotAvailableError where somebody reads it all the time."""
    dropped = await may_drop(connection, partition, groups, verify)
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
        await connection.execute(_of(partition, "hold"))
        rows = await _archived(connection, partition)
        reasons = await _needed(connection, partition, groups, [places[0] for places in rows.values()])
        if reasons:
            raise RefusedError(partition, reasons)
        await _out(connection, partition)
        assert dropped.months, "a partition without months is refused"
        await connection.execute(SQL["dropped"], dropped.months[0], dropped.months[-1] + timedelta(days=1))
    return dropped


async def groups_of(connection: Connection, known: Sequence[str]) -> list[str]:
    """The groups that must have had every event: those that are known, and every other that ever read."""
    return sorted({*known, *(row["consumer_group"] for row in await connection.fetch(SQL["groups"]))})


async def _out(connection: Connection, partition: Partition) -> None:
    for attempt in range(ATTEMPTS_MAX):
        try:
            async with connection.transaction():
                await connection.execute(_of(partition, "drop"))
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == ATTEMPTS_MAX - 1:
                raise
            await asyncio.sleep(PAUSE_S)


async def _too_young(connection: Connection, partition: Partition) -> list[str]:
    """Why it is too early, or not its turn."""
    assert partition.ends is not None, "the net is never dropped"
    now: datetime = await connection.fetchval("SELECT now()")
    number = now.year * 12 + now.month - 1 - MONTHS_KEPT_MIN
    if partition.ends > now.replace(year=number // 12, month=number % 12 + 1, day=1):
        return [f"it ended less than {MONTHS_KEPT_MIN} months ago"]
    caught = await connection.fetchval(SQL["caught"], partition.ends)
    if caught:
        return [f"{caught} older events lie in the net; a consumer moves them within the hour"]
    return []


async def _months(connection: Connection, partition: Partition) -> list[date]:
    """The months of a partition that are sealed; of one month, that one in any case."""
    assert partition.ends is not None, "the net is never dropped"
    last = (partition.ends.astimezone(UTC).date() - timedelta(days=1)).replace(day=1)
    begin = (
        partition.begins.astimezone(UTC).date()
        if partition.begins and partition.begins.year > 1
        else date.min
    )
    months = [month for month in await archives.sealed_months(connection) if begin <= month <= last]
    return months if last in months else [*months, last]


async def _archived(connection: Connection, partition: Partition) -> dict[date, list[ArchivedRow]]:
    """Where each month of a partition lies, the newest archive first."""
    months = await _months(connection, partition)
    rows: dict[date, list[ArchivedRow]] = {}
    for row in await archives.archives(connection):
        if row.month in months and row.dropped_at is None:
            rows.setdefault(row.month, []).insert(0, row)
    return rows


async def _needed(
    connection: Connection, partition: Partition, groups: Sequence[str], rows: Sequence[ArchivedRow]
) -> list[str]:
    """Why its events are still needed here."""
    reasons = []
    held = await connection.fetchval(_of(partition, "count"))
    archived = sum(row.events for row in rows)
    if held != archived:
        reasons.append(f"it holds {held} events, its archive {archived}")
    for row in await connection.fetch(_of(partition, "behind"), list(groups)):
        behind = f"{row['consumer_group']} has not handled every event of {row['subjects']} subjects"
        reasons.append(f"{behind} (one is {row['example']})")
    for name, what in (
        ("letters", "are dead letters that wait"),
        ("unpublished", "were never published"),
        ("deliveries", "are webhooks that are still to be sent"),
    ):
        if number := await connection.fetchval(_of(partition, name)):
            reasons.append(f"{number} of its events {what}")
    running = [row["id"] for row in await connection.fetch(SQL["replays"])]
    if running:
        reasons.append(f"a replay is under way ({', '.join(running)})")
    return reasons


def _of(partition: Partition, name: str) -> str:
    quoted = '"' + partition.name.replace('"', '""') + '"'
    return SQL[name].format(partition=quoted)
