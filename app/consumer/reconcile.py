"""The reconciler: compares orders and products with a group's marks, and has applied what no stream told of.

That is what a flushed Redis lost after the relay had published it. It goes through the orders by their last
change, from the beginning when the process starts or Redis was emptied, then only through those that changed
lately. If the process dies here, the next one starts at the beginning.
"""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Final

from app.consumer.effect import Delivery
from app.consumer.patience import Patience
from app.infra.postgres.projections import Place, PostgresProjections
from app.observability.logging import logger

INTERVAL_S: Final = 30.0
QUIET_S: Final = 5.0
"""An order that changed more recently is left to the streams."""
SETTLE_S: Final = 1.0
OVERLAP: Final = timedelta(minutes=2)
"""Changes may become visible later than their time says, and clocks differ."""
PAGE_SIZE_MAX: Final = 1000
PAGE_PAUSE_S: Final = 0.05
INBOX_MAX: Final = 1000
"""How many subjects may wait for the reader."""

_BEGINNING: Final = (datetime(1970, 1, 1, tzinfo=UTC), "")

log = logger("reconciler")


class Reconciler:
    """Looks again and again; hands what it finds to a reader."""

    def __init__(self, store: PostgresProjections, group: str, inbox: asyncio.Queue[Delivery]) -> None:
        """Compare orders with the marks of `group`."""
        self._store = store
        self._group = group
        self._inbox = inbox
        self._after = _BEGINNING
        self._lost = asyncio.Event()

    def start_over(self) -> None:
        """Redis has lost its streams: look at everything, soon."""
        self._lost.set()

    async def run(self, patience: Patience) -> None:
        """Look again and again. Raises Unavailable; it goes on where it was."""
        while True:
            while self._lost.is_set():
                self._lost.clear()
                self._after = _BEGINNING
                await asyncio.sleep(QUIET_S + SETTLE_S)
            orders, products = await self._look(), await self._look_at_products()
            patience.well()
            if orders or products:
                found = {"orders": orders, "products": products}
                log.info("applying_what_no_stream_told", group=self._group, **found)
            await self._pause(INTERVAL_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _look(self) -> int:
        """One way through the orders; how many were behind."""
        found = 0
        after = self._after
        while True:
            page = await self._store.behind(self._group, after, quiet_s=QUIET_S, page_size_max=PAGE_SIZE_MAX)
            for order in page.behind:
                await self._inbox.put(Delivery(order.subject, order.version))
            found += len(page.behind)
            after = page.next
            self._after = _before(after)
            if page.is_last:
                return found
            await asyncio.sleep(PAGE_PAUSE_S)

    async def _look_at_products(self) -> int:
        """One way through the SKUs, with their prices and adjustments; how many were behind."""
        found = 0
        after = ""
        while True:
            behind = await self._store.products_behind(
                self._group, after, quiet_s=QUIET_S, page_size_max=PAGE_SIZE_MAX
            )
            for product in behind:
                await self._inbox.put(Delivery(product.subject, product.version))
            found += len(behind)
            if len(behind) < PAGE_SIZE_MAX:
                return found
            after = behind[-1].subject
            await asyncio.sleep(PAGE_PAUSE_S)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        except TimeoutError:
            return


def _before(place: Place) -> Place:
    """Where to go on another time: on the way through all orders here, on that through changes earlier."""
    at, _ = place
    return place if at == _BEGINNING[0] else (at - OVERLAP, "")
