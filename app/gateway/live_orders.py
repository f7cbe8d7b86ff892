"""`OrderStreams`: everybody who follows one order, told each of its events once and in order.

A listener knows the sequence it was told last. The next one is passed on as it is heard; anything else that
is heard says that something is missing, and that is read from PostgreSQL, for all who miss something in one
statement. So is everything after each new subscription, every `POLL_S`, and every `POLL_AWAY_S` while nothing
can be heard. If the process dies here, its listeners come again and name the last event they have.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from app.contracts.streams import Envelope
from app.gateway.live_listener import Listener, MayStay, frame
from app.gateway.live_looking import PAUSE_S, Looking
from app.infra.postgres.live_events import LiveEvents
from app.infra.redis.live import Heard

POLL_S: Final = 10.0
POLL_AWAY_S: Final = 2.0
ORDERS_A_STATEMENT_MAX: Final = 250
EVENTS_OF_EACH_MAX: Final = 200
FINAL: Final = frozenset({"order.completed.v1", "order.rejected.v1", "order.cancelled.v1"})

_encoder: Final = msgspec.json.Encoder()


class Archived(msgspec.Struct, frozen=True):
    """What is said in place of the first events of an order when they are in an archive only."""

    subject: str
    archived_through: int


def archived_frame(order_id: str, through: int) -> bytes:
    """A frame that stands for an order's events up to a sequence; its id is that of the last of them."""
    said = _encoder.encode(Archived(order_id, through))
    return frame(f"{order_id}:{through}", "events.archived", said)


class OrderListener(Listener):
    """Follows one order; `last` is the sequence it was told last.

    `is_final`: the order's final event was told or passed, and the stream ends when there is nothing more.
    """

    __slots__ = ("is_final", "last", "order_id")

    def __init__(self, may_stay: MayStay, order_id: str, last: int, *, is_final: bool) -> None:
        """Follow `order_id` from behind the sequence `last`."""
        super().__init__(may_stay)
        self.order_id = order_id
        self.last = last
        self.is_final = is_final


class OrderStreams:
    """The listeners of one process, by order."""

    def __init__(self, events: LiveEvents, is_heard: Callable[[], bool]) -> None:
        """Read `events`; `is_heard` says whether what is published is heard just now."""
        self._events = events
        self._is_heard = is_heard
        self._listeners: dict[str, list[OrderListener]] = {}
        self._behind: set[str] = set()
        self._news = asyncio.Event()
        self._looked_at = 0.0
        self._looking = Looking("order")
        self._task: asyncio.Task[None] | None = None

    def attach(self, listener: OrderListener) -> None:
        """Tell this listener what it misses and what happens from now on."""
        self._listeners.setdefault(listener.order_id, []).append(listener)
        self._miss(listener.order_id)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())

    def detach(self, listener: OrderListener) -> None:
        """Tell it nothing more."""
        left = [other for other in self._listeners[listener.order_id] if other is not listener]
        if left:
            self._listeners[listener.order_id] = left
        else:
            del self._listeners[listener.order_id]
            self._behind.discard(listener.order_id)
            self._news.set()

    def heard(self, heard: Heard, payload: bytes) -> None:
        """Pass on what was published."""
        if heard.subject in self._listeners and not self._tell(heard, lambda: payload):
            self._miss(heard.subject)

    def missed(self) -> None:
        """Look for what was not heard."""
        self._behind.update(self._listeners)
        self._news.set()

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _tell(self, event: Heard | Envelope, envelope: Callable[[], bytes]) -> bool:
        """Tell an event to whom it is the next one; whether there is nothing more to look for."""
        told: bytes | None = None
        is_whole = True
        for listener in self._listeners[event.subject]:
            if event.sequence == listener.last + 1:
                told = told or frame(event.id, event.type, envelope())
                listener.push(told)
                listener.last = event.sequence
                if event.type in FINAL:
                    listener.is_final = True
                    is_whole = False  # the look that finds nothing more ends the stream
            elif event.sequence > listener.last:
                is_whole = False
        return is_whole

    def _miss(self, order_id: str) -> None:
        self._behind.add(order_id)
        self._news.set()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._looked_at = loop.time()
        while self._listeners:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_AWAY_S):
                    await self._news.wait()
            self._news.clear()
            if loop.time() - self._looked_at >= (POLL_S if self._is_heard() else POLL_AWAY_S):
                self._looked_at = loop.time()
                self._behind.update(self._listeners)
            try:
                await self._catch_up()
            except Exception as error:  # noqa: BLE001 - whatever it is, there are others who listen
                self._looking.failed(error)
                await asyncio.sleep(PAUSE_S)
                self._news.set()

    async def _catch_up(self) -> None:
        while self._behind:
            orders = list(islice(self._behind, ORDERS_A_STATEMENT_MAX))
            self._behind.difference_update(orders)
            positions = {
                order_id: min(listener.last for listener in self._listeners[order_id])
                for order_id in orders
                if order_id in self._listeners
            }
            if not positions:
                continue
            try:
                events = await self._events.after(positions, EVENTS_OF_EACH_MAX)
            except Exception:
                self._behind.update(self._listeners.keys() & positions.keys())
                raise
            self._looking.well()
            for event in events:
                if event.subject in self._listeners:
                    self._tell(event, partial(_encoder.encode, event))
            found = Counter(event.subject for event in events)
            for order_id in self._listeners.keys() & positions.keys():
                self._looked(order_id, is_all=found[order_id] < EVENTS_OF_EACH_MAX)

    def _looked(self, order_id: str, *, is_all: bool) -> None:
        """End the streams of an order that is final and has nothing more; else look again."""
        if not is_all:
            self._miss(order_id)
        elif order_id not in self._behind:
            for listener in self._listeners[order_id]:
                if listener.is_final:
                    listener.end()
