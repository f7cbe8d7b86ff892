"""`Documents`: the cached document of every order that was read or changed lately.

The newer version wins, however writes overtake one another. The document of an open order is kept for at most
a second after it was true, also where the write itself was late, so a write that is lost heals itself; that
of a final order is kept for an hour: only its price may still be mended, and whoever does that writes it. If
the process dies here, the next reader asks PostgreSQL.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

from app.contracts.documents import encode_order
from app.contracts.streams import order_document
from app.domain.errors import Unavailable
from app.domain.order import Order
from app.hotpath.cache import Cache
from app.hotpath.cache_entries import Entry, Loaded
from app.infra.redis.clients import REQUEST_DEADLINE_S, RedisClients, unavailable_when_away

OPEN_LIFETIME_S: Final = 1.0
FINAL_LIFETIME_S: Final = 3600.0
MISSING_LIFETIME_S: Final = 0.5
"""How long it is remembered that there is no such order."""

NO_ORDER: Final = Loaded(None, MISSING_LIFETIME_S)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NAME: Final = "\0"


def loaded(order: Order) -> Loaded:
    """An order as the cache takes it.

    What an order waits for changes without a new version, so equal versions are told apart by their time.
    """
    return Loaded(
        encode_order(order),
        FINAL_LIFETIME_S if order.is_final else OPEN_LIFETIME_S,
        version=order.version,
        change=(order.updated_at - _EPOCH) // _MICROSECOND,
    )


class Documents:
    """Order documents in Redis. Every method raises Unavailable where Redis does not answer."""

    def __init__(self, clients: RedisClients, environment: str) -> None:
        """Keep the documents of this environment."""
        self.clients = clients
        self.key_parts: tuple[str, str] = order_document(environment, _NAME).split(_NAME)  # type: ignore[assignment]
        self._environment = environment
        self._cache = Cache(clients.hot, away=(Unavailable,))

    def key(self, order_id: str) -> str:
        """Where an order's document is."""
        return order_document(self._environment, order_id)

    def entry(self, order: Order, as_of: float) -> Entry:
        """An order's document, true as of `as_of` (monotonic)."""
        return Entry(self.key(order.id), loaded(order), as_of)

    async def get(self, order_id: str) -> bytes | None:
        """An order's document as it is sent to readers; None when it is not here."""
        with unavailable_when_away():
            found = await self._cache.find(self.key(order_id))
        return found.body if found is not None and found.is_fresh else None

    async def put(self, order: Order, *, as_of: float | None = None) -> None:
        """Put an order's document, unless a newer one is there."""
        await self.put_all((order,), as_of=as_of)

    async def put_all(
        self, orders: Sequence[Order], *, as_of: float | None = None, deadline_s: float = REQUEST_DEADLINE_S
    ) -> None:
        """Put the documents of many orders in one round trip, each unless a newer one is there.

        They are true as of `as_of` (monotonic): a moment before the statement that read or changed them was
        sent. None is now, for whoever is sure that it took no time.
        """
        at = monotonic() if as_of is None else as_of
        with unavailable_when_away():
            await self._cache.put_all([self.entry(order, at) for order in orders], deadline_s=deadline_s)

    async def rewrite(self, orders: Sequence[Order]) -> None:
        """Put the documents of orders as they were just read, whatever is there."""
        at = monotonic()
        with unavailable_when_away():
            await asyncio.gather(*(self._cache.forget(self.key(order.id)) for order in orders))
        await self.put_all(orders, as_of=at)
