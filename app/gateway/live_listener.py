"""`Listener`: one stream of Server-Sent Events, from its head to its end.

What is told waits in a queue that is bounded; whoever takes nothing for `PATIENCE_S`, or lets the queue run
full, is dropped and resumes when it comes again. A stream ends by itself after some minutes, and at once when
the process is to stop. If the process dies here, nobody has lost an event: each is in PostgreSQL, and its id
says where to go on.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final

from app.gateway.exchange import Headers, Receive, Send
from app.observability import metrics

MEDIA: Final = b"text/event-stream"
HEADERS: Final[Headers] = (
    (b"content-type", MEDIA),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
HEARTBEAT_S: Final = 15.0
LIFETIME_S: Final = (600.0, 900.0)
"""A stream ends after a time between these, so that not all come again at once."""
PATIENCE_S: Final = 10.0
LEAVE_S: Final = 0.25
"""How long a reader may take for the end of its stream when the process is to stop."""
FRAMES_MAX: Final = 4_096
RETRY_MS: Final = (500, 2_500)
"""Clients are asked to pause between these before they come again."""

_CHUNK_BYTES: Final = 32_768
_HEARTBEAT: Final = b":\n\n"

MayStay = Callable[[], Awaitable[bool]]
"""Whether the caller may still follow; asked with every heartbeat."""


def frame(identity: str, kind: str, envelope: bytes) -> bytes:
    """One event as it is sent; `envelope` is JSON. Line ends in it are but white space between its parts."""
    if b"\n" in envelope or b"\r" in envelope:
        envelope = envelope.replace(b"\n", b" ").replace(b"\r", b" ")
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (identity.encode(), kind.encode(), envelope)


class Listener:
    """Whoever follows. Told by `push` and `end`, which never wait; `serve` sends what was told."""

    __slots__ = (
        "_ended",
        "_is_dropped",
        "_loop",
        "_news",
        "_patience_s",
        "_queue",
        "_sending",
        "may_stay",
        "takes_nothing",
    )

    def __init__(self, may_stay: MayStay) -> None:
        """Nothing is sent before `serve`."""
        self.may_stay = may_stay
        self.takes_nothing = False
        self._is_dropped = False
        self._ended = False
        self._patience_s = PATIENCE_S
        self._queue: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Future[None] | None = None
        self._sending: asyncio.Timeout | None = None

    def push(self, told: bytes) -> None:
        """Have a frame sent; drops the listener where too many wait already."""
        if self._ended:
            return
        if len(self._queue) >= FRAMES_MAX:
            self.takes_nothing = True
            self.drop()
            return
        self._queue.append(told)
        self._wake()

    def end(self) -> None:
        """End the stream when what waits is sent."""
        self._ended = True
        self._wake()

    def leave(self) -> None:
        """End the stream now, in order, whatever waits: the process is to stop."""
        self._hurry(LEAVE_S)

    def drop(self) -> None:
        """Give the stream up, and what waits with it."""
        self._is_dropped = True
        self._hurry(0.0)

    def _hurry(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._queue.clear()
        self.end()
        if self._sending is not None:
            with suppress(RuntimeError):  # it ends in this very moment
                self._sending.reschedule(self._loop.time() + patience_s)

    async def serve(
        self, receive: Receive, send: Send, first: Callable[[], AsyncGenerator[bytes]] | None = None
    ) -> None:
        """Send the head, what `first` gives, and then what is told, until the end."""
        watching = asyncio.create_task(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await self._send(send, b"retry: %d\n\n" % random.randint(*RETRY_MS))  # noqa: S311 - jitter
            if first is not None:
                async with aclosing(first()) as chunks:
                    async for chunk in chunks:
                        await self._send(send, chunk)
                        if self._ended:
                            break
            await self._go_on(send)
            if not self._is_dropped:
                await self._send(send, b"", more=False)
        except TimeoutError:
            self.takes_nothing = self.takes_nothing or not self._is_dropped
        finally:
            self._ended = True
            self._queue.clear()
            watching.cancel()

    async def _go_on(self, send: Send) -> None:
        now = self._loop.time()
        ends_at = now + random.uniform(*LIFETIME_S)  # noqa: S311 - jitter
        beats_at = now + HEARTBEAT_S
        while True:
            if self._queue:
                await self._send_waiting(send)
            elif self._ended:
                return
            else:
                await self._wait(min(beats_at, ends_at))
            now = self._loop.time()
            if now >= ends_at:
                self._ended = True
            elif now >= beats_at and not self._ended:
                beats_at = now + HEARTBEAT_S
                await self._send(send, _HEARTBEAT)
                if not await self.may_stay():
                    self._ended = True

    async def _send_waiting(self, send: Send) -> None:
        """Send some of what waits: a piece of bounded size, so that it shows who takes nothing."""
        frames: list[bytes] = []
        size = 0
        while self._queue and size < _CHUNK_BYTES:
            frames.append(self._queue.popleft())
            size += len(frames[-1])
        await self._send(send, b"".join(frames))
        metrics.LIVE_EVENTS.inc(len(frames))

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        """Hand bytes to the server. Raises TimeoutError where the reader takes nothing."""
        try:
            async with asyncio.timeout(self._patience_s) as self._sending:
                if self._is_dropped:
                    raise TimeoutError
                await send({"type": "http.response.body", "body": body, "more_body": more})
        finally:
            self._sending = None

    async def _wait(self, until: float) -> None:
        """Wait for news, or until a time of the loop's clock."""
        self._news = self._loop.create_future()
        timer = self._loop.call_at(until, self._wake)
        try:
            await self._news
        finally:
            timer.cancel()
            self._news = None

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _watch(self, receive: Receive) -> None:
        """Notice that the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.drop()
