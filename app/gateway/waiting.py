"""`Prefer: wait=N`: wait until an order is confirmed or final, without asking once per request.

One task asks PostgreSQL for all orders that are waited for, each at intervals that grow with how long it has
been waited for: an answer is a few milliseconds late at first, and an order that waits for days costs four
questions a second. It needs no Redis. If the process dies here, only the wait ends: the order was accepted.
"""

import asyncio
import re
from contextlib import suppress
from time import monotonic
from typing import Final

from app.domain.errors import Unavailable
from app.domain.order import Order
from app.infra.postgres.order_lists import PostgresOrderLists

WAIT_SECONDS_MAX: Final = 30
WAITERS_MAX: Final = 256
INTERVAL_S_MIN: Final = 0.004
INTERVAL_S_MAX: Final = 0.25
INTERVAL_SHARE: Final = 0.04
"""The pause before the next question, as a share of the time waited."""
FIRST_LOOK_S: Final = 0.008

_WAIT: Final = re.compile(r"(?:^|[,;]|\s)wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)


def wanted_wait_s(prefer: str | None) -> int:
    """How long a caller wants to wait (RFC 7240), in seconds, at most 30; 0 when it does not."""
    match = _WAIT.search(prefer or "")
    return min(int(match[1]), WAIT_SECONDS_MAX) if match else 0


class _Waiter:
    __slots__ = ("due", "future", "order_id", "since")

    def __init__(self, order_id: str, now: float) -> None:
        self.order_id = order_id
        self.since = now
        self.due = now + FIRST_LOOK_S
        self.future: asyncio.Future[tuple[Order, float] | None] = asyncio.get_running_loop().create_future()

    def looked(self, now: float) -> None:
        """Set the time of the next look."""
        pause = (now - self.since) * INTERVAL_SHARE
        self.due = now + min(max(pause, INTERVAL_S_MIN), INTERVAL_S_MAX)


class Watch:
    """Waits for orders."""

    def __init__(self, lists: PostgresOrderLists) -> None:
        """Ask these lists."""
        self._lists = lists
        self._waiters: set[_Waiter] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def settled(self, order_id: str, wait_s: float) -> tuple[Order, float] | None:
        """The order once it is confirmed, further or final; None when it is not after `wait_s` seconds.

        With it comes the moment (monotonic) as of which it was that. None at once where too many wait
        already, and when the process is to stop.
        """
        if self._closed or len(self._waiters) >= WAITERS_MAX:
            return None
        waiter = _Waiter(order_id, asyncio.get_running_loop().time())
        self._waiters.add(waiter)
        self._news.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            return await asyncio.wait_for(waiter.future, wait_s)
        except TimeoutError:
            return None
        finally:
            self._waiters.discard(waiter)

    def let_go(self) -> None:
        """Let everybody go who waits, and who comes: the process is to stop."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_result(None)

    async def close(self) -> None:
        """Stop looking."""
        self.let_go()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        asked_at = 0.0
        while self._waiters:
            self._news.clear()
            now = loop.time()
            due_at = min(waiter.due for waiter in self._waiters)
            if due_at > now:
                with suppress(TimeoutError):
                    async with asyncio.timeout(due_at - now):
                        await self._news.wait()
                continue
            # However many wait, one question at a time, and not more often than for one who waits alone.
            await asyncio.sleep(asked_at + INTERVAL_S_MIN - now)
            asked_at = loop.time()
            due = [waiter for waiter in self._waiters if waiter.due <= asked_at]
            await self._ask(due)
            for waiter in due:
                waiter.looked(loop.time())

    async def _ask(self, due: list[_Waiter]) -> None:
        as_of = monotonic()
        try:
            settled = await self._lists.settled([waiter.order_id for waiter in due])
        except Unavailable:
            return
        found = {order.id: order for order in settled}
        for waiter in due:
            if waiter.order_id in found and not waiter.future.done():
                waiter.future.set_result((found[waiter.order_id], as_of))
