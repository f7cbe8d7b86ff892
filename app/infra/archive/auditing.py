"""The audit of months that are only in an archive: the chains go on there, and each day is what was sealed.

It reads the newest month first and remembers, of each chain that began earlier, its first event: the month
before must end with what that one follows. So it holds a block, and a word for each subject that goes over
the border of two months. It writes nothing.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date
from typing import Final

from app.domain.chain import Break, Inspection, LinkedEvent
from app.infra.archive.months import after, moments, shown
from app.infra.archive.reading import ArchivedMonth, open_month
from app.infra.archive.store import ArchiveStore, DamagedArchiveError
from app.infra.archive.writing import Days, UnlikeItsSealError
from app.infra.postgres import archives
from app.infra.postgres.archives import ArchivedRow
from app.infra.postgres.chain_audit import ChainAudit, Report
from app.infra.postgres.pool import Connection

HEADS_MAX: Final = 2000
_ORDER: Final = "ord_"


class ArchiveAudit:
    """Walks archived months. `events` and `months` are how many it has seen."""

    def __init__(self, connection: Connection, report: Report, chains: ChainAudit, url: str | None) -> None:
        """Go on where `chains` has left off; read at `url`, or where each month was archived."""
        self._connection = connection
        self._report = report
        self._chains = chains
        self._url = url
        self._ended: dict[str, LinkedEvent] = {}
        self._earlier: dict[str, LinkedEvent] = {}
        self._joints: dict[str, LinkedEvent] = {}
        self.events = 0
        self.months = 0

    async def run(
        self, dropped: Sequence[ArchivedRow], begin: date | None = None, end: date | None = None
    ) -> AsyncIterator[int]:
        """Walk all months, or those that touch the days from `begin` to `end`, each by itself.

        After each block, how many events. Raises UnreachableArchiveError, NotArchivedError, and what
        PostgreSQL says.
        """
        is_narrow = begin is not None or end is not None
        self._joints = dict(self._chains.joints)
        for row in reversed(dropped):
            if (begin is not None and after(row.month) <= begin) or (end is not None and row.month > end):
                continue
            if is_narrow:
                self._joints = {}
            store = ArchiveStore(self._url or row.url)
            try:
                archived = await open_month(store, row.month, row.manifest_hash)
                async for done in self._walk(archived, is_narrow=is_narrow):
                    yield done
            except DamagedArchiveError as error:
                is_narrow = True  # nothing before it can be joined to what comes after it
                self._ended = {}
                self._report(Break("archive-damaged", str(error), day=row.month))
            self.months += 1
        if not is_narrow:
            self._report_lost()

    async def _walk(self, archived: ArchivedMonth, *, is_narrow: bool) -> AsyncIterator[int]:
        inspection = Inspection()
        days = Days(await archives.seals_of(self._connection, archived.month))
        self._earlier = {}
        orders = 0
        async for block in archived.blocks():
            for event in block:
                before = inspection.last
                is_first = before is None or before.subject != event.subject
                if is_first:
                    self._end(before)
                    self._begin(event)
                    orders += event.sequence == 1 and event.subject.startswith(_ORDER)
                for found in inspection.follow(event, continues=is_first and event.sequence > 1):
                    self._report(found)
                self._add(days, event)
            self.events += len(block)
            if len(self._ended) >= HEADS_MAX:
                await self._compare(is_narrow=is_narrow)
            yield self.events
        self._end(inspection.last)
        await self._compare(is_narrow=is_narrow)
        self._joints |= self._earlier
        for day in days.unlike():
            self._report(Break("unlike-its-seal", "the events in the archive are not those", day=day))
        made = await archives.orders_of(self._connection, *moments(archived.month))
        if made > orders:
            detail = (
                f"{made} orders were made in {shown(archived.month)}, and {orders} have their first event"
            )
            self._report(Break("missing", detail, day=archived.month))

    def _begin(self, event: LinkedEvent) -> None:
        """A chain has its first event of this month."""
        self._chains.untold.discard(event.subject)
        if event.sequence > 1:
            self._earlier[event.subject] = event

    def _end(self, last: LinkedEvent | None) -> None:
        """A chain has its last event of this month: what comes later follows it, or nothing does."""
        if last is None:
            return
        joint = self._joints.pop(last.subject, None)
        if joint is None:
            self._ended[last.subject] = last
        elif joint.sequence != last.sequence + 1:
            detail = f"the archive ends with {last.sequence}; what came between is gone"
            self._report(Break("missing", detail, joint.subject, joint.sequence))
        elif joint.previous_hash != last.hash:
            detail = "it does not follow the event before it, as that is archived"
            self._report(Break("unlinked", detail, joint.subject, joint.sequence))

    def _add(self, days: Days, event: LinkedEvent) -> None:
        try:
            days.add(event)
        except UnlikeItsSealError:
            detail = f"{event.time.astimezone(UTC).date()} has no seal"
            self._report(Break("unsealed", detail, event.subject, event.sequence))

    async def _compare(self, *, is_narrow: bool) -> None:
        """Hold the ends of chains against their orders and products."""
        ended, self._ended = self._ended, {}
        if not is_narrow:
            await self._chains.compare(ended)

    def _report_lost(self) -> None:
        for event in self._joints.values():
            detail = "what came before it is neither here nor in the archive"
            self._report(Break("missing", detail, event.subject, event.sequence))
        for sku in sorted(self._chains.untold):
            self._report(Break("missing", "all events of this product are missing", sku))
