"""Order documents: from Redis when they are there, else from PostgreSQL and back into Redis.

Redis may be dead: every read then goes to PostgreSQL, once for all who want the same order at that moment. A
few per cent of reads go there anyway, so that way is never untried. If the process dies here, documents that
were not written yet are read from PostgreSQL by the next reader.
"""

import asyncio
import random
from typing import Final

import msgspec
from redis.exceptions import RedisError

from app.contracts.documents import encode_order
from app.domain.errors import Unavailable
from app.domain.order import Order
from app.gateway.deadlines import within
from app.infra.postgres.orders import PostgresOrders
from app.infra.redis.documents import Documents
from app.observability.logging import logger

ROUND_THE_CACHE: Final = 0.03
"""The share of reads that go to PostgreSQL although the document may be in Redis."""
READ_DEADLINE_S: Final = 2.5
WAITING_MAX: Final = 1_000
"""Documents that wait to be written to Redis; more are left to the next reader."""
BATCH_MAX: Final = 100

log = logger("documents")


class Head(msgspec.Struct, frozen=True):
    """The few fields of a document that decide who may see it and what its tag is."""

    id: str
    customer_id: str
    version: int
    waiting_on: str | None


HEAD: Final = msgspec.json.Decoder(Head)
"""Reads a document's head, and whether the rest is JSON at all."""


class CachedOrders:
    """Reads and shows documents of orders."""

    def __init__(self, orders: PostgresOrders, documents: Documents) -> None:
        """Read these orders through these documents."""
        self._orders = orders
        self._documents = documents
        self._loading: dict[str, asyncio.Task[bytes]] = {}
        self._waiting: dict[str, Order] = {}
        self._showing: asyncio.Task[None] | None = None

    async def read(self, order_id: str) -> bytes:
        """An order's document. Raises LookupError and Unavailable."""
        if random.random() < ROUND_THE_CACHE:  # noqa: S311 - no secret
            try:
                return await self._load(order_id)
            except Unavailable:
                found = await self._cached(order_id)
                if found is None:
                    raise
                return found
        return await self._cached(order_id) or await self._load(order_id)

    def show_soon(self, order: Order) -> None:
        """Have an order's document written to Redis soon; costs the caller nothing and never raises."""
        waiting = self._waiting.get(order.id)
        if waiting is None and len(self._waiting) >= WAITING_MAX:
            return
        if waiting is None or waiting.version <= order.version:
            self._waiting[order.id] = order
        if self._showing is None or self._showing.done():
            self._showing = asyncio.create_task(self._show_waiting())

    async def show(self, order: Order) -> None:
        """Have it written before this returns, if Redis takes it in time; never raises."""
        await self._put([order])

    async def close(self) -> None:
        """Stop; what waits is left to the next reader."""
        if self._showing is not None:
            self._showing.cancel()
            await asyncio.gather(self._showing, return_exceptions=True)

    async def _cached(self, order_id: str) -> bytes | None:
        try:
            stored = await self._documents.get(order_id)
            if stored is None or _is_of(order_id, stored):
                return stored
            log.warning("document_not_ours", order_id=order_id)
            await self._documents.forget(order_id)
        except Unavailable:
            pass
        except RedisError as error:
            log.warning("document_not_read", error=str(error))
        return None

    async def _load(self, order_id: str) -> bytes:
        """From PostgreSQL: one flight for all who want the same order at the same time."""
        task = self._loading.get(order_id)
        if task is None:
            task = self._loading[order_id] = asyncio.create_task(self._load_once(order_id))
            task.add_done_callback(lambda _: self._loading.pop(order_id, None))
        return await within(READ_DEADLINE_S, task)

    async def _load_once(self, order_id: str) -> bytes:
        order = await self._orders.load(order_id)
        self.show_soon(order)
        return encode_order(order)

    async def _show_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.pop(order_id) for order_id in list(self._waiting)[:BATCH_MAX]]
            await self._put(batch)

    async def _put(self, orders: list[Order]) -> None:
        try:
            await self._documents.put_all(orders)
        except Unavailable:
            pass
        except RedisError as error:
            log.warning("documents_not_written", error=str(error))


def _is_of(order_id: str, stored: bytes) -> bool:
    """Whether this is a document of that order. Redis is not believed: anybody may have written there."""
    try:
        return HEAD.decode(stored).id == order_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
