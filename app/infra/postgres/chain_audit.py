"""The audit of the chains: every event is hashed anew, and every chain is held against its order or product.

It reads a batch at a time, each in a moment of its own, so it holds little and stops nobody, however long it
takes. What is written meanwhile is seen or not, and is right either way. If the process dies here, nothing is
lost but the time.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import msgspec

from app.domain.chain import Break, Inspection, LinkedEvent
from app.infra.postgres.pool import Connection
from app.infra.postgres.statements import statements

SQL: Final = statements("audit")
BATCH_EVENTS_MAX: Final = 2000
PAGE_HEADS_MAX: Final = 5000

Report: TypeAlias = Callable[[Break], None]

_ALWAYS: Final = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
_WHERE: Final = {"orders": "order", "products": "product"}


class Span(msgspec.Struct, frozen=True):
    """From a moment up to another, without it."""

    begin: datetime
    end: datetime


class ChainAudit:
    """Walks the chains of one database. `events` and `subjects` are how many it has seen."""

    def __init__(self, connection: Connection, report: Report, dropped_until: datetime | None = None) -> None:
        """Read on a connection of its own, and report each break when it is found.

        What happened before `dropped_until` is in an archive: `joints` are the first events here of chains
        that begin there, `untold` the products of which nothing is here. Somebody else looks for both there.
        """
        self._connection = connection
        self._report = report
        self._dropped_until = dropped_until
        self.events = 0
        self.subjects = 0
        self.joints: dict[str, LinkedEvent] = {}
        self.untold: set[str] = set()

    async def run(self, span: Span | None = None) -> AsyncIterator[int]:
        """Walk all chains, or those that have an event in `span`, wholly; after each batch, how many events.

        Raises what PostgreSQL says.
        """
        if span is None:
            async for done in self._walk():
                yield done
        else:
            await self._connection.execute(SQL["open_subjects"], span.begin, span.end)
            while page := [row["subject"] for row in await self._connection.fetch(SQL["next_subjects"])]:
                async for done in self._walk(page):
                    yield done
            await self._connection.execute(SQL["close_subjects"])
        for heads in _WHERE:
            async for _ in self._untold(heads, span):
                yield self.events

    async def _walk(self, subjects: Sequence[str] | None = None) -> AsyncIterator[int]:
        """The chains of all, or of these."""
        inspection = Inspection()
        after: tuple[str, int] = ("", 0)
        more = True
        while more:
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                if subjects is None:
                    rows = await self._connection.fetch(SQL["all"], *after, BATCH_EVENTS_MAX)
                else:
                    rows = await self._connection.fetch(SQL["some"], *after, BATCH_EVENTS_MAX, subjects)
                more = len(rows) == BATCH_EVENTS_MAX
                await self.compare(self._follow(inspection, rows, is_end=not more))
            if rows:
                after = (rows[-1]["subject"], rows[-1]["sequence"])
            self.events += len(rows)
            yield self.events

    def _follow(self, inspection: Inspection, rows: Sequence[Any], *, is_end: bool) -> dict[str, LinkedEvent]:
        """Follow a batch; the last events of the chains that ended in it."""
        ended: dict[str, LinkedEvent] = {}
        for row in rows:
            before = inspection.last
            event = LinkedEvent(*row)
            if before is not None and before.subject != event.subject:
                ended[before.subject] = before
            is_first = before is None or before.subject != event.subject
            continues = is_first and event.sequence > 1 and self._dropped_until is not None
            if continues:
                self.joints[event.subject] = event
            for found in inspection.follow(event, continues=continues):
                self._report(found)
        if is_end and inspection.last is not None:
            ended[inspection.last.subject] = inspection.last
        return ended

    async def compare(self, ended: dict[str, LinkedEvent]) -> None:
        """Hold the ends of chains against their orders and products, as these are in this moment."""
        if not ended:
            return
        self.subjects += len(ended)
        rows = await self._connection.fetch(SQL["heads"], list(ended))
        heads = {row["subject"]: row for row in rows}
        for subject, last in ended.items():
            head = heads.get(subject)
            if head is None:
                self._report(Break("unowned", "there is no such order or product", subject, last.sequence))
            elif head["version"] != last.sequence:
                detail = f"it is the last event, but its order or product is at {head['version']}"
                self._report(Break("ended", detail, subject, last.sequence))
            elif head["last_hash"] != last.hash:
                detail = "its hash is not the one that its order or product ends with"
                self._report(Break("ended", detail, subject, last.sequence))

    async def _untold(self, heads: str, span: Span | None) -> AsyncIterator[None]:
        """Orders or products without any event."""
        begin, end = _ALWAYS if span is None else (span.begin, span.end)
        if self._dropped_until is not None and heads == "orders":
            begin = max(begin, self._dropped_until)
        after = ""
        while True:
            rows = await self._connection.fetch(SQL[heads], after, begin, end, PAGE_HEADS_MAX)
            for row in rows:
                if not row["is_told"] and self._dropped_until is not None and heads == "products":
                    self.untold.add(row["subject"])
                elif not row["is_told"]:
                    detail = f"all events of this {_WHERE[heads]} are missing"
                    self._report(Break("missing", detail, row["subject"]))
            yield
            if len(rows) < PAGE_HEADS_MAX:
                return
            after = rows[-1]["subject"]


async def estimate(connection: Connection) -> int:
    """About how many events there are; 0 when PostgreSQL has not counted yet."""
    return int(await connection.fetchval(SQL["estimate"]) or 0)
