"""`Documents`: the cached document of every order that was read or changed lately.

The newer version wins, however writes overtake one another. An order that is still open is kept for at most a
second, so a write that is lost heals itself; a final one is kept for an hour. If the process dies here, the
next reader asks PostgreSQL.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from app.contracts.documents import encode_order
from app.contracts.streams import order_document
from app.domain.order import Order
from app.infra.redis.clients import REQUEST_DEADLINE_S, RedisClients
from app.infra.redis.scripts import source

OPEN_LIFETIME_MS: Final = 1_000
FINAL_LIFETIME_MS: Final = 3_600_000

_PUT: Final = source("put_document")
_PUT_SHA: Final = hashlib.sha1(_PUT, usedforsecurity=False).hexdigest()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Documents:
    """Order documents in Redis. Every method raises Unavailable where Redis does not answer."""

    def __init__(self, clients: RedisClients, environment: str) -> None:
        """Keep the documents of this environment."""
        self._clients = clients
        self._environment = environment

    async def get(self, order_id: str) -> bytes | None:
        """An order's document as it is sent to readers; None when it is not here."""
        async with self._clients.bounded():
            stored = await self._clients.reads.get(order_document(self._environment, order_id))
        return stored.partition(b"\n")[2] if isinstance(stored, bytes) else None

    async def forget(self, order_id: str) -> None:
        """Remove whatever is kept as an order's document."""
        async with self._clients.bounded():
            await self._clients.writes.delete(order_document(self._environment, order_id))

    async def put(self, order: Order) -> None:
        """Put an order's document, unless a newer one is there."""
        await self.put_all((order,))

    async def put_all(self, orders: Sequence[Order], *, deadline_s: float = REQUEST_DEADLINE_S) -> None:
        """Put the documents of many orders in one round trip, each unless a newer one is there."""
        if not orders:
            return
        async with self._clients.bounded(deadline_s):
            replies = await self._send(orders)
            if any(isinstance(reply, NoScriptError) for reply in replies):
                await self._clients.writes.script_load(_PUT)
                replies = await self._send(orders)
            for reply in replies:
                if isinstance(reply, ResponseError):
                    raise reply

    async def _send(self, orders: Sequence[Order]) -> list[Any]:
        pipeline = self._clients.writes.pipeline(transaction=False)
        for order in orders:
            pipeline.evalsha(
                _PUT_SHA,
                1,
                order_document(self._environment, order.id),
                order.version,
                (order.updated_at - _EPOCH) // timedelta(microseconds=1),
                encode_order(order),
                FINAL_LIFETIME_MS if order.is_final else OPEN_LIFETIME_MS,
            )
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies
