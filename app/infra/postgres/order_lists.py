"""`PostgresOrderLists`: reading many orders, and the history of one. It writes nothing.

Ids sort by the time of acceptance, so a page goes by the primary key or by an index that ends with it, and
never counts or skips rows. If the process dies here, nothing has happened.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from app.domain.ids import order_id
from app.domain.order import Order, Status
from app.infra.postgres.archives import archived_through
from app.infra.postgres.order_rows import order_from
from app.infra.postgres.partitions import not_before
from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements

SQL: Final = statements("order_lists")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Wanted(msgspec.Struct, frozen=True):
    """Which orders: every condition that is set must hold. `before_id` is where the last page ended."""

    customer_id: str | None = None
    status: Status | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    before_id: str | None = None


class StoredEvent(msgspec.Struct, frozen=True):
    """One event as it was written; `data` is its JSON text."""

    subject: str
    sequence: int
    type: str
    time: datetime
    correlation_id: str
    traceparent: str | None
    data: str


def _first_id(at: datetime) -> str:
    """The smallest id that an order of this millisecond can have."""
    return order_id(max(at - _EPOCH, timedelta(0)) // _MILLISECOND, bytes(10))


class PostgresOrderLists:
    """Lists of orders and of events. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def page(self, wanted: Wanted, limit: int) -> list[Order]:
        """At most `limit` orders, newest first."""
        after, before = wanted.created_after or _EPOCH, wanted.created_before or _LATEST
        last = _first_id(before + _MILLISECOND) if wanted.created_before else "ord_~"
        arguments = [
            _first_id(after),
            min(last, wanted.before_id or last),
            wanted.created_after or _EPOCH,
            before,
            limit,
        ]
        name = "all"
        if wanted.customer_id is not None and wanted.status is not None:
            name, arguments = "of_customer_in_status", [*arguments, wanted.customer_id, wanted.status]
        elif wanted.customer_id is not None:
            name, arguments = "of_customer", [*arguments, wanted.customer_id]
        elif wanted.status is not None:
            name, arguments = "in_status", [*arguments, wanted.status]
        return [order_from(row) for row in await self._database.fetch(SQL[name], *arguments)]

    async def settled(self, order_ids: Sequence[str]) -> list[Order]:
        """Those of the orders that are confirmed, further, or final."""
        return [order_from(row) for row in await self._database.fetch(SQL["settled"], order_ids)]

    async def customer(self, order_id: str) -> str | None:
        """Whose an order is; None when there is no such order."""
        rows = await self._database.fetch(SQL["customer"], order_id)
        return rows[0]["customer_id"] if rows else None

    async def events(self, subject: str, *, after: int, limit: int) -> list[StoredEvent]:
        """What happened to an order or a SKU after sequence number `after`, in order."""
        rows = await self._database.fetch(SQL["events"], subject, after, limit, not_before(subject))
        return [StoredEvent(**row) for row in rows]

    async def archived_through(self, subject: str) -> int:
        """The last sequence of an order or a SKU that is in an archive only; 0: all that happened is here."""
        async with self._database.connection() as connection:
            return (await archived_through(connection, [subject])).get(subject, 0)
