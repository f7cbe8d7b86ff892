"""Owns placing the orders and watching them until each is settled.

An order is placed under a key made of the import's name and the line, so a line is one order however often
it is asked for. The process may die anywhere: the next run asks for every line again and is given the orders
that are there.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from app.dev.importing.api import PAGE_SIZE, Api, Going, Order, RefusedError, body_of_order
from app.dev.importing.at_once import each
from app.dev.importing.purchases import Purchase, shares

FINAL: Final = frozenset({"completed", "rejected", "cancelled"})
REQUESTS_MAX: Final = 16
"""Orders that are being sent at once."""
LOOK_INTERVAL_S: Final = 0.4
LOOKS_FOR_A_WHOLE_ONE: Final = 20

_INSTANT: Final = timedelta(microseconds=1)


class Placement(msgspec.Struct, frozen=True):
    """A purchase and the order that it became."""

    purchase: Purchase
    order_id: str
    created_at: datetime


class Orders:
    """The orders of one import: those placed, those settled, and the lines that were refused."""

    def __init__(
        self, api: Api, going: Going, run: str, *, open_max: int, show: Callable[[int, int], None]
    ) -> None:
        """Place under the name `run`, with at most `open_max` orders under way at once.

        `show` is told the numbers placed and settled.
        """
        self._api = api
        self._going = going
        self._run = run
        self._show = show
        self._may_place = asyncio.Semaphore(open_max)
        self._open_max = open_max
        self._open: dict[str, Placement] = {}
        self._looks = 0
        self.placed: dict[str, Placement] = {}
        self.settled: dict[str, Order] = {}
        self.refused: list[tuple[Purchase, str]] = []

    async def place_all(self, purchases: list[Purchase], per_second: float | None) -> None:
        """Place every purchase, at most so many a second."""
        loop = asyncio.get_running_loop()
        started = loop.time()

        async def place(numbered: tuple[int, Purchase]) -> None:
            number, purchase = numbered
            if per_second is not None:
                await asyncio.sleep(max(0.0, started + number / per_second - loop.time()))
            await self._may_place.acquire()  # until it is settled
            await self._place(purchase)

        await each(enumerate(purchases), min(REQUESTS_MAX, self._open_max), place)

    async def _place(self, purchase: Purchase) -> None:
        lines = [{"sku": share.sku, "quantity": share.pieces} for share in shares(purchase)]
        body = body_of_order(purchase.customer, purchase.cents, lines, purchase.day.isoformat())
        key = f"import-{self._run}-{purchase.line}"
        try:
            answer = await self._api.send("POST", "/v1/orders", body, key=key)
        except RefusedError as error:
            self.refused.append((purchase, str(error)))
            self._may_place.release()
            return
        order = msgspec.json.decode(answer.body, type=Order)
        placement = Placement(purchase, order.id, datetime.fromisoformat(order.created_at))
        self.placed[order.id] = self._open[order.id] = placement
        self._show(len(self.placed), len(self.settled))

    async def settle(self, placing: asyncio.Task[None]) -> None:
        """Look until placing is over and every order is settled. Raises StackError when nothing goes on."""
        while self._open or not placing.done():
            await asyncio.wait({placing}, timeout=LOOK_INTERVAL_S)
            if placing.done():
                await placing  # raises what ended it
                await asyncio.sleep(LOOK_INTERVAL_S if self._open else 0)
            await self._look()
            self._show(len(self.placed), len(self.settled))
            self._going.check(f"{len(self._open)} orders to be settled")

    async def _look(self) -> None:
        """Ask for the oldest open orders, a page at a time, until a page has nothing new.

        Orders settle about in their order, so that is one request or two. Now and then all are asked for,
        because some that are stuck must not hide the others.
        """
        self._looks += 1
        whole = self._looks % LOOKS_FOR_A_WHOLE_ONE == 0
        waiting = sorted(self._open.values(), key=lambda one: one.created_at)
        for start in range(0, len(waiting), PAGE_SIZE):
            before = len(self.settled)
            await self._look_between(waiting[start : start + PAGE_SIZE])
            if len(self.settled) > before:
                self._going.on()
            elif not whole:
                return

    async def _look_between(self, some: list[Placement]) -> None:
        window = {
            "created_after": _text(some[0].created_at - _INSTANT),
            "created_before": _text(some[-1].created_at + _INSTANT),
        }
        async for page in self._api.pages("/v1/orders", Order, **window):
            for order in page:
                if order.status in FINAL and order.id in self._open:
                    self.settled[order.id] = order
                    del self._open[order.id]
                    self._may_place.release()


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
