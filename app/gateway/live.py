"""`Live`: events as they happen, for everybody who follows them at this gateway, from one subscription.

It is subscribed while somebody listens. Listeners are bounded; streams end when the process is to stop, so
that it stops at once. Nothing is kept here that PostgreSQL does not have: if the process dies, its listeners
come again and name the last event they have.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Final

from prometheus_client import Gauge

from app.gateway.connections import Peer, cut_off
from app.gateway.exchange import Receive, Send
from app.gateway.live_listener import LEAVE_S, Listener
from app.gateway.live_orders import OrderListener, OrderStreams
from app.gateway.live_tail import Tail, TailListener
from app.gateway.problems import ProblemError
from app.infra.postgres.live_events import LiveEvents
from app.infra.redis.live import Heard, LiveChannel
from app.observability import metrics

LISTENERS_MAX: Final = 4_096
"""Streams of one process."""
TAILS_MAX: Final = 64
"""Of these, streams of all events."""

_ORDER: Final = metrics.LIVE_LISTENERS.labels("order")
_ALL: Final = metrics.LIVE_LISTENERS.labels("all")


class Live:
    """The streams of one gateway."""

    def __init__(self, events: LiveEvents, channel: LiveChannel) -> None:
        """Read `events`, hear `channel`."""
        self.events = events
        self._channel = channel
        self._orders = OrderStreams(events, self._is_heard)
        self._tail = Tail(events, self._is_heard)
        self._listeners: dict[Listener, Peer] = {}
        self._tails = 0
        self._is_closed = False

    def check_room(self, *, for_all: bool = False) -> None:
        """Raises ProblemError where nobody else can follow here: too many do, or the process is to stop."""
        if self._is_closed:
            raise _full("This process is about to stop.", b"1")
        if len(self._listeners) >= LISTENERS_MAX:
            raise _full(f"{LISTENERS_MAX} streams are open here.", b"10")
        if for_all and self._tails >= TAILS_MAX:
            raise _full(f"{TAILS_MAX} streams of all events are open here.", b"10")

    async def ready(self) -> None:
        """Prepare for those who follow all events. Raises Unavailable."""
        await self._tail.ready()

    async def serve_order(self, listener: OrderListener, receive: Receive, send: Send, peer: Peer) -> None:
        """Stream what happens to an order, until the end."""
        with self._counted(listener, peer, _ORDER):
            self._orders.attach(listener)
            try:
                await listener.serve(receive, send)
            finally:
                self._orders.detach(listener)

    async def serve_all(
        self,
        listener: TailListener,
        behind: tuple[str, datetime] | None,
        receive: Receive,
        send: Send,
        peer: Peer,
    ) -> None:
        """Stream all events: from now on, or from behind an event (its id and its time)."""
        await self._tail.ready()
        with self._counted(listener, peer, _ALL):
            self._tails += 1
            first = None if behind is None else partial(self._tail.resumed, listener, *behind)
            if first is None:
                self._tail.attach(listener)
            try:
                await listener.serve(receive, send, first)
            finally:
                self._tails -= 1
                self._tail.detach(listener)

    def let_go(self) -> None:
        """End every stream, and let nobody in: the process is to stop."""
        if self._is_closed:
            return
        self._is_closed = True
        for listener in self._listeners:
            listener.leave()
        # Who has not taken its end by then takes nothing.
        asyncio.get_running_loop().call_later(2 * LEAVE_S, cut_off, set(self._listeners.values()))

    async def close(self) -> None:
        """Stop everything."""
        self.let_go()
        self._channel.close()
        await self._orders.close()
        await self._tail.close()

    @contextmanager
    def _counted(self, listener: Listener, peer: Peer, gauge: Gauge) -> Iterator[None]:
        """Hear what happens as long as somebody listens."""
        self._listeners[listener] = peer
        gauge.inc()
        self._channel.open(self._heard, self._missed)
        if self._is_closed:
            listener.leave()
        try:
            yield
        finally:
            del self._listeners[listener]
            gauge.dec()
            if not self._listeners:
                self._channel.close()
            if listener.takes_nothing:
                cut_off({peer})

    def _is_heard(self) -> bool:
        return self._channel.is_heard

    def _heard(self, heard: Heard, payload: bytes) -> None:
        self._orders.heard(heard, payload)
        if self._tails:
            self._tail.heard(heard, payload)

    def _missed(self) -> None:
        self._orders.missed()
        self._tail.missed()


def _full(detail: str, seconds: bytes) -> ProblemError:
    return ProblemError("overloaded", detail, headers=((b"retry-after", seconds),))
