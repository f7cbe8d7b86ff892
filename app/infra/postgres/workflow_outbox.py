"""The workflow outbox: what Temporal is still to be told, written with the change that makes it necessary.

Rows are claimed for a while and deleted when Temporal has answered. If the process dies in between, the claim
runs out and somebody else tells Temporal again, which changes nothing: ids make a second start harmless, and
signals say only "look".
"""

from typing import Final

import asyncpg
import msgspec

from app.infra.postgres.pool import Database
from app.infra.postgres.statements import statements

SQL: Final = statements("workflow_outbox")


class Call(msgspec.Struct, frozen=True):
    """One thing to tell: `kind` is `start`, `cancel` or `delivered` (then `detail` is the fulfilment).

    `status` is the order's when the call was claimed.
    """

    id: int
    order_id: str
    kind: str
    detail: str | None
    status: str
    customer_id: str
    correlation_id: str
    traceparent: str | None = None


class OpenOrder(msgspec.Struct, frozen=True):
    """An open order that has not moved for long."""

    order_id: str
    status: str
    customer_id: str
    correlation_id: str
    traceparent: str | None = None


class WorkflowOutbox:
    """The queue in PostgreSQL. All methods raise Unavailable."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def claim(self, limit: int, lease_s: float) -> list[Call]:
        """The oldest calls that nobody works on; ours for `lease_s` seconds."""
        rows = await self._database.fetch(SQL["claim"], limit, lease_s)
        return sorted((_as(Call, row) for row in rows), key=lambda call: call.id)

    async def done(self, ids: list[int]) -> None:
        """Temporal has answered these."""
        await self._database.execute(SQL["done"], ids)

    async def give_back(self, ids: list[int], pause_s: float) -> None:
        """These did not get through; not before `pause_s` seconds again."""
        await self._database.execute(SQL["give_back"], ids, pause_s)

    async def idle_orders(self, idle_s: float, limit: int) -> list[OpenOrder]:
        """Open orders that have not moved, nor been looked at, for `idle_s` seconds."""
        rows = await self._database.fetch(SQL["check"], idle_s, limit)
        return [_as(OpenOrder, row) for row in rows]


def _as(kind, row: asyncpg.Record):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - any of the structs above
    return msgspec.convert(dict(row), kind)
