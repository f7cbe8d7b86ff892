"""What a consumer group writes: its marks, and its handlers' tables, in one transaction.

A mark says how far the group has come with a subject. It is locked before anything is decided and written
with the effect, so an event that is delivered twice, late, or by two processes at once has its effect once.
If the process dies here, neither the effect nor the mark is there, and the event is delivered again.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from app.contracts.streams import Envelope
from app.domain.order import Order
from app.infra.postgres.archives import archived_through
from app.infra.postgres.event_outbox import envelope
from app.infra.postgres.leases import guard
from app.infra.postgres.order_rows import order_from
from app.infra.postgres.partitions import not_before
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("projections")

_ORDER_PREFIX: Final = "ord_"


class DayCounts(msgspec.Struct):
    """What is to be added to one day's row of one currency. Money is in minor units."""

    accepted: int = 0
    confirmed: int = 0
    completed: int = 0
    rejected: int = 0
    cancelled: int = 0
    items: int = 0
    captured: int = 0
    refunded: int = 0


class Gap(msgspec.Struct, frozen=True):
    """The events of a subject behind one sequence, up to and with another."""

    subject: str
    behind: int
    last: int


class Behind(msgspec.Struct, frozen=True):
    """A subject whose events a group has not all seen: `version` is the sequence of its last."""

    subject: str
    version: int


Place = tuple[datetime, str]
"""A place on the way through the orders. Whoever walks keeps it; what it says is this module's business."""

_NO_SPANS: Final[Mapping[str, tuple[int, int]]] = {}
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPAN_S: Final = 120.0
_OVERLAP_S: Final = 120.0


class Page(msgspec.Struct, frozen=True):
    """Some orders that a group is behind with, and where the next page begins."""

    behind: tuple[Behind, ...]
    next: Place
    is_last: bool


class _MarkedMeanwhileError(Exception):
    """Somebody else made a mark that was not there when the statement began."""


class Effects:
    """One transaction of a group. Handlers write by `connection`, and it is committed with the marks.

    `marks` are the locked subjects with how far the group had come with each; those of the subjects in
    `moved` are at the end of their span by now. Those in `held` wait behind a dead letter. `orders` are the
    orders among them as they are now, in groups that ask for them.
    """

    def __init__(self, connection: Connection, group: str, source: str, marks: Mapping[str, int]) -> None:
        """Be the transaction on `connection`, in which `marks` are locked."""
        self.connection = connection
        self.group = group
        self.marks = marks
        self.held: frozenset[str] = frozenset()
        self.moved: frozenset[str] = frozenset()
        self.orders: Mapping[str, Order] = {}
        self._source = source

    async def events(self, gaps: Sequence[Gap]) -> list[Envelope]:
        """The events of some subjects from the log of record, in order."""
        columns = zip(*((gap.subject, gap.behind, gap.last) for gap in gaps), strict=True)
        since = not_before(*(gap.subject for gap in gaps))
        rows = await self.connection.fetch(SQL["events_between"], *columns, since)
        return [envelope(row, self._source) for row in rows]

    async def archived_through(self, subjects: Sequence[str]) -> dict[str, int]:
        """For those of the subjects whose first events are in archives only: the last sequence of these."""
        return await archived_through(self.connection, subjects)

    async def last_events(self, subjects: Sequence[str]) -> dict[str, int]:
        """The last sequence of each of some subjects in the log of record."""
        rows = await self.connection.fetch(SQL["last_events"], subjects, not_before(*subjects))
        return {row["subject"]: row["sequence"] for row in rows}

    async def load_orders(self, subjects: Iterable[str]) -> None:
        """Have `orders` hold those of the subjects that are orders."""
        ids = [subject for subject in subjects if subject.startswith(_ORDER_PREFIX)]
        rows = await self.connection.fetch(SQL["orders"], ids) if ids else ()
        self.orders = {row["id"]: order_from(row) for row in rows}

    async def set_marks(self, marks: Mapping[str, int]) -> None:
        """The group has come this far with these subjects."""
        await self.connection.execute(SQL["set_marks"], self.group, list(marks), list(marks.values()))

    async def add_to_summary(self, days: Mapping[tuple[date, str], DayCounts]) -> None:
        """Add to the rows of some days and currencies. Locks them: do it last."""
        if days:
            rows = [(*key, *msgspec.structs.astuple(counts)) for key, counts in days.items()]
            await self.connection.execute(SQL["add_to_summary"], *zip(*rows, strict=True))


class PostgresProjections:
    """The marks and tables of consumer groups. Every method raises Unavailable."""

    def __init__(self, database: Database, source: str) -> None:
        """Work on this database; events name `source` as theirs."""
        self._database = database
        self._source = source

    @asynccontextmanager
    async def effects(
        self,
        group: str,
        subjects: Sequence[str],
        tokens: Mapping[int, int],
        spans: Mapping[str, tuple[int, int]] = _NO_SPANS,
    ) -> AsyncIterator[Effects]:
        """One transaction with the marks of `subjects` locked; committed at the end.

        `tokens` (shard → token) are the leases that it rests on. `spans` are first and last of the events
        that are at hand, without a gap: a mark directly before the first is set to the last at once.
        Raises LeaseLostError.
        """
        while True:
            try:
                async with self._database.transaction() as connection:
                    if tokens:
                        await guard(connection, group, tokens)
                    effects = Effects(connection, group, self._source, {})
                    await _take_marks(effects, sorted(subjects), spans)
                    yield effects
                return
            except _MarkedMeanwhileError:
                continue

    async def orders(self, ids: Sequence[str]) -> list[Order]:
        """Some orders as they are now."""
        return [order_from(row) for row in await self._database.fetch(SQL["orders"], ids)]

    async def behind(self, group: str, after: Place, *, quiet_s: float, page_size_max: int) -> Page:
        """The next orders that the group has not come to the end of, unchanged for `quiet_s` seconds.

        From a time and an empty text, the orders that changed since then. From 1970 first all orders by id,
        then those that changed since that way was begun: a place remembers when, however long it is kept.
        """
        async with self._database.connection() as connection:
            if after[0] == _BEGINNING:
                return await _behind_by_id(connection, group, after[1], quiet_s, page_size_max)
            return await _behind_by_time(connection, group, after, quiet_s, page_size_max)

    async def products_behind(
        self, group: str, after: str, *, quiet_s: float, page_size_max: int
    ) -> list[Behind]:
        """The next SKUs, by SKU, whose prices and adjustments the group has not all seen."""
        rows = await self._database.fetch(SQL["products_behind"], group, after, quiet_s, page_size_max)
        return [Behind(row["sku"], row["version"]) for row in rows]


async def _take_marks(effects: Effects, names: Sequence[str], spans: Mapping[str, tuple[int, int]]) -> None:
    """Lock the marks, and move on those that can be."""
    nothing = (0, 0)
    columns = zip(*[spans.get(name, nothing) for name in names], strict=True) if names else ((), ())
    rows = await effects.connection.fetch(SQL["take_marks"], effects.group, names, *columns)
    if len(rows) < len(names):
        raise _MarkedMeanwhileError
    effects.marks = {row["subject"]: row["sequence"] for row in rows}
    effects.held = frozenset(row["subject"] for row in rows if row["is_held"])
    effects.moved = frozenset(row["subject"] for row in rows if row["is_moved"])


async def _behind_by_id(
    connection: Connection, group: str, place: str, quiet_s: float, page_size_max: int
) -> Page:
    begun, _, last_id = place.partition(" ")
    if not begun:
        span = await connection.fetchrow(SQL["span"], _BEGINNING, _OVERLAP_S, 0.0)
        assert span is not None
        begun = span["quiet"].isoformat()
    rows = await connection.fetch(SQL["behind_by_id"], group, last_id, quiet_s, page_size_max)
    behind = tuple(Behind(row["id"], row["version"]) for row in rows if row["is_behind"])
    if len(rows) < page_size_max:
        return Page(behind, (datetime.fromisoformat(begun), ""), is_last=False)
    return Page(behind, (_BEGINNING, f"{begun} {rows[-1]['id']}"), is_last=False)


async def _behind_by_time(
    connection: Connection, group: str, after: Place, quiet_s: float, page_size_max: int
) -> Page:
    span = await connection.fetchrow(SQL["span"], after[0], quiet_s, _SPAN_S)
    assert span is not None
    rows = await connection.fetch(SQL["behind_by_time"], group, *after, span["until"], page_size_max)
    behind = tuple(Behind(row["id"], row["version"]) for row in rows)
    if len(rows) == page_size_max:
        return Page(behind, (rows[-1]["updated_at"], rows[-1]["id"]), is_last=False)
    return Page(behind, max(after, (span["until"], "")), is_last=span["until"] >= span["quiet"])
