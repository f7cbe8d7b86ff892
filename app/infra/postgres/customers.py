"""The customers' summaries: what each customer ordered and paid, added up as events are handled.

Adding is one statement for a whole batch, in the transaction of whoever handles the events, so each event is
counted once. If the process dies here, neither count nor mark is there, and the events are counted later.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("customers")


class CustomerCounts(msgspec.Struct):
    """What is to be added to the row of one customer and currency. Money is in minor units."""

    accepted: int = 0
    completed: int = 0
    rejected: int = 0
    cancelled: int = 0
    items: int = 0
    captured: int = 0
    refunded: int = 0
    first_order_at: datetime | None = None
    last_order_at: datetime | None = None

    def ordered_at(self, at: datetime) -> None:
        """An order was accepted then."""
        self.first_order_at = min(at, self.first_order_at or at)
        self.last_order_at = max(at, self.last_order_at or at)


class CustomerRow(CustomerCounts, kw_only=True):
    """The summary of one customer in one currency."""

    currency: str


async def add(connection: Connection, counts: Mapping[tuple[str, str], CustomerCounts]) -> None:
    """Add to the rows of some customers and currencies, in the caller's transaction; it locks them."""
    if counts:
        rows = [(*key, *msgspec.structs.astuple(value)) for key, value in counts.items()]
        await connection.execute(SQL["add"], *zip(*rows, strict=True))


class PostgresCustomers:
    """The summaries. Raises Unavailable."""

    def __init__(self, database: Database) -> None:
        """Read this database."""
        self._database = database

    async def summary(self, customer_id: str) -> list[CustomerRow]:
        """What a customer ordered and paid, by currency; empty where no order of that customer is known."""
        rows = await self._database.fetch(SQL["summary"], customer_id)
        return [CustomerRow(**row) for row in rows]
