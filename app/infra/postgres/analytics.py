"""Analytics: what happened in each minute, added up as events are handled, and read by the gateway.

Adding is one statement for a whole batch, in the transaction of the group's marks, so every event is counted
once. If the process dies here, neither count nor mark is there, and the events are counted later.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec

from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("analytics")

ORDERS: Final = "orders"
REVENUE: Final = "revenue"
REFUNDS: Final = "refunds"
REJECTIONS: Final = "rejections"
PRICE_CHANGES: Final = "price_changes"
PRICE_ADJUSTMENTS: Final = "price_adjustments"
PRICE_ADJUSTED: Final = "price_adjusted"

Counts: TypeAlias = Mapping[tuple[datetime, str, str], int]
"""Minute, measure and key (status, currency, reason or nothing) → what is to be added."""

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)


class Minute(msgspec.Struct, frozen=True):
    """One minute: its measures by their keys. Money is in minor units, by currency."""

    minute: datetime
    measures: dict[str, dict[str, int]]

    def of(self, measure: str) -> dict[str, int]:
        """What was counted under a measure, by key."""
        return self.measures.get(measure, {})


async def add(connection: Connection, counts: Counts) -> None:
    """Add to some minutes, in the caller's transaction. Locks their rows: do it last."""
    if counts:
        rows = [(*key, value) for key, value in counts.items()]
        await connection.execute(SQL["add"], *zip(*rows, strict=True))


class PostgresAnalytics:
    """The minutes. Raises Unavailable."""

    def __init__(self, database: Database) -> None:
        """Read this database."""
        self._database = database

    async def minutes(
        self, since: datetime | None, until: datetime | None, after: datetime | None, limit: int
    ) -> list[Minute]:
        """Minutes in which anything happened: from `since`, before `until`, behind `after`; oldest first."""
        rows = await self._database.fetch(
            SQL["page"], since or _FIRST, after or _FIRST, until or _LAST, limit
        )
        found: dict[datetime, dict[str, dict[str, int]]] = {}
        for row in rows:
            found.setdefault(row["minute"], {}).setdefault(row["measure"], {})[row["key"]] = row["value"]
        return [Minute(minute, measures) for minute, measures in found.items()]
