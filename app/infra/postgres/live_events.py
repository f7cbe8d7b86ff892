"""`LiveEvents`: events as whoever follows them live wants them: after a sequence, or since a time.

It only reads what is committed. Nothing of one subject is left out between two sequences; by time, an event
may become visible a while after its time, so whoever reads by time begins `LATE` before what it knows.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from app.contracts.streams import Envelope
from app.domain.order import Status
from app.infra.postgres.archives import archived_through, dropped_until
from app.infra.postgres.event_outbox import envelope
from app.infra.postgres.partitions import not_before
from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements

SQL: Final = statements("live_events")

LATE: Final = timedelta(seconds=15)
"""An event is visible at most so long after its time: no statement and no idle transaction lasts longer."""

PAGE: Final = 500
_SPAN_FIRST: Final = timedelta(seconds=30)
_SPAN_MIN: Final = timedelta(seconds=1)
_SPAN_MAX: Final = timedelta(hours=6)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)


class Followed(msgspec.Struct, frozen=True):
    """An order that somebody wants to follow: whose it is and how far it is.

    `archived_through` is the last sequence that is in an archive only, 0 where all is here.
    """

    customer_id: str
    status: Status
    version: int
    archived_through: int = 0


class Happened(msgspec.Struct, frozen=True):
    """An event, and when it happened."""

    at: datetime
    envelope: Envelope


class LiveEvents:
    """Events, to be read by sequence and by time. Every method raises Unavailable."""

    def __init__(self, database: Database, source: str) -> None:
        """Read this database; events name `source` as theirs."""
        self._database = database
        self._source = source

    async def order(self, order_id: str) -> Followed | None:
        """An order; None when there is no such order."""
        rows = await self._database.fetch(SQL["order"], order_id, not_before(order_id))
        if not rows:
            return None
        row = rows[0]
        return Followed(row["customer_id"], Status(row["status"]), row["version"], row["archived_through"])

    async def after(self, positions: Mapping[str, int], each_max: int) -> list[Envelope]:
        """What happened to each subject after its sequence, in order, at most `each_max` events of each."""
        found = await self._database.fetch(
            SQL["after"], list(positions), list(positions.values()), each_max, not_before(*positions)
        )
        return [envelope(row, self._source) for row in found]

    async def now(self) -> datetime:
        """The database's clock."""
        return await self._time("now")

    async def time_of(self, subject: str, sequence: int) -> datetime | None:
        """When an event happened; None when there is no such event."""
        rows = await self._database.fetch(SQL["time_of"], subject, sequence, not_before(subject))
        return rows[0]["time"] if rows else None

    async def archived_until(self, subject: str, sequence: int) -> datetime | None:
        """Where an event is in an archive only: since when there are events here. None where it is not."""
        async with self._database.connection() as connection:
            if (await archived_through(connection, [subject])).get(subject, 0) < sequence:
                return None
            return await dropped_until(connection)

    async def since(self, since: datetime) -> AsyncIterator[list[Happened]]:
        """What happened at `since` or later, by time, in pages.

        Goes through time in spans that hold about a page, so that no statement sorts more than that.
        """
        span = _SPAN_FIRST
        until_now = await self.now()
        start = since
        while True:
            is_last = start + span >= until_now
            end = _LAST if is_last else start + span
            after = (start, "", 0)
            pages = 0
            while True:
                rows = await self._database.fetch(SQL["span"], end, *after, PAGE)
                if rows:
                    yield [Happened(row["time"], envelope(row, self._source)) for row in rows]
                if len(rows) < PAGE:
                    break
                pages += 1
                after = (rows[-1]["time"], rows[-1]["subject"], rows[-1]["sequence"])
            if is_last:
                return
            start = end
            span = max(span / 2, _SPAN_MIN) if pages > 1 else min(span * 2, _SPAN_MAX)

    async def _time(self, name: str) -> datetime:
        rows = await self._database.fetch(SQL[name])
        at: datetime = rows[0][0]
        return at
