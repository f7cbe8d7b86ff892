"""`RepricingSpan`: the orders that a replay of a price list looks at, and whether they are still the same.

They are the orders accepted in a span of time, read from the orders themselves: those are never deleted, and
their ids sort by the time of acceptance. A span that was left open ends a moment before the replay began:
what was accepted in that very moment may not be visible yet. Everything is said in the caller's transaction.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from app.domain.events import Line
from app.domain.ids import order_id
from app.infra.postgres.pool import Connection
from app.infra.postgres.statements import statements

SQL: Final = statements("repricing")

UNSEEN_S: Final = 1.0
"""An order is visible so long after it was accepted; one that is later is found when all are verified."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MARGIN: Final = timedelta(seconds=1)
_lines: Final = msgspec.json.Decoder(tuple[Line, ...])


class Counted(msgspec.Struct, frozen=True):
    """How many orders there are, and how many price adjustments they have."""

    orders: int
    adjustments: int


class Listed(msgspec.Struct, frozen=True):
    """An order, and the SKUs in it."""

    order_id: str
    skus: frozenset[str]


class LeftOut(msgspec.Struct, frozen=True):
    """Orders that cannot be adjusted, by the code of the reason; the `first` of them in words."""

    code: str
    orders: int
    first: tuple[str, ...]


class RepricingSpan:
    """The orders accepted from `since` and before `until`, or that one of them."""

    def __init__(
        self, connection: Connection, replay: str, since: datetime | None, until: datetime, order: str | None
    ) -> None:
        """Look at them on this connection, for this replay."""
        self._connection = connection
        self._replay = replay
        begin = since or _EPOCH
        self.until = until
        self._span = (_first_id(begin - _MARGIN), _first_id(until + _MARGIN), begin, until, order)

    async def count(self) -> Counted:
        """How many there are now."""
        row = await self._connection.fetchrow(SQL["count"], *self._span)
        assert row is not None
        return Counted(row["orders"], row["adjustments"])

    async def page(self, behind: str, limit: int) -> list[Listed]:
        """The next of them behind an id, in order of their ids."""
        rows = await self._connection.fetch(SQL["page"], *self._span, behind, limit)
        return [
            Listed(row["id"], frozenset(line.sku for line in _lines.decode(row["lines"]))) for row in rows
        ]

    async def leave_out(self, refused: Sequence[tuple[str, str, str]]) -> None:
        """Put on record which orders cannot be adjusted: id, code and detail of each."""
        if refused:
            await self._connection.execute(
                SQL["leave_out"], self._replay, *map(list, zip(*refused, strict=True))
            )

    async def left_out(self, first: int) -> list[LeftOut]:
        """What was left out, with the `first` few of each code in words."""
        rows = await self._connection.fetch(SQL["left_out"], self._replay, first)
        return [LeftOut(row["code"], row["orders"], tuple(row["first"])) for row in rows]


async def begin(
    connection: Connection, replay: str, since: datetime | None, until: datetime | None, order: str | None
) -> RepricingSpan:
    """Fix which orders a replay looks at, and how many adjustments they have."""
    row = await connection.fetchrow(SQL["begin"], replay, until, UNSEEN_S)
    assert row is not None
    span = RepricingSpan(connection, replay, since, row["until"], order)
    await connection.execute(SQL["note_adjustments"], replay, (await span.count()).adjustments)
    return span


async def begun(
    connection: Connection, replay: str, since: datetime | None, order: str | None
) -> tuple[RepricingSpan, int]:
    """The orders that a replay looks at, and how many adjustments they had when it began."""
    row = await connection.fetchrow(SQL["begun"], replay)
    assert row is not None
    return RepricingSpan(connection, replay, since, row["until"], order), row["adjustments"]


def _first_id(at: datetime) -> str:
    """The smallest id that an order of this millisecond can have."""
    return order_id(max(min(at, _LATEST) - _EPOCH, timedelta(0)) // _MILLISECOND, bytes(10))
