"""`PostgresShelves`: what may still be promised: on hand, less what orders have reserved or wait for."""

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

        SKUs that do not exist are left out. Raises Unavailable.
        """
        if skus is None:
            rows = await self._database.fetch(SQL["available"])
        else:
            rows = await self._database.fetch(SQL["available_of"], list(skus))
        return {row["sku"]: max(row["available"], 0) for row in rows}
