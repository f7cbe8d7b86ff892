"""`PostgresShelves`: how many pieces of each SKU may still be promised.

That is what is on hand, less what is reserved, less what accepted orders want that have not come to the
shelves yet. It is advice for whoever turns requests away early; what is true is decided when an order is
reserved. Nothing is written here, so if the process dies, nothing has happened.
"""

from collections.abc import Collection, Mapping
from typing import Final

from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements

SQL: Final = statements("shelves")


class PostgresShelves:
    """The stock of record, as the sold-out gate wants it."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def available(self, skus: Collection[str] | None = None) -> Mapping[str, int]:
        """SKU → pieces that no order has or waits for, never below 0; of all SKUs where None are named.

        All as they are in one moment. SKUs that do not exist are left out. Raises Unavailable.
        """
        if skus is None:
            rows = await self._database.fetch(SQL["available"])
        else:
            rows = await self._database.fetch(SQL["available_of"], sorted(set(skus)))
        # Two arrays in one row: a hundred thousand rows of their own would take four times as long to read.
        found, pieces = rows[0]
        return dict(zip(found or (), pieces or (), strict=True))
