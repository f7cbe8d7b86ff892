"""`Hints`: "look now", said to whoever polls otherwise. Over Redis pub/sub.

A hint may be lost, doubled or late: whoever listens also polls. Publishing costs the caller nothing and never
raises; hints of one moment become one. If the process dies here, the poll is the net.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

from app.infra.redis.clients import RedisClients

_GAP_S: Final = 0.01
"""At least so much time passes between two hints of one process; the first goes at once."""


class Listener:
    """One channel, heard. It connects again by itself, and reports a hint whenever it did."""

    def __init__(self, clients: RedisClients, channel: str) -> None:
        """Start to listen."""
        self._hint = asyncio.Event()
        self._subscription = clients.subscriptions.subscribe(channel, self._heard, missed=self._hint.set)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a hint, at most `timeout_s`; whether there was one since the last call."""
        if not self._hint.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._hint.wait()
        heard = self._hint.is_set()
        self._hint.clear()
        return heard

    def wake(self) -> None:
        """Report a hint that came from this very process."""
        self._hint.set()

    async def close(self) -> None:
        """Stop listening."""
        self._subscription.close()

    def _heard(self, _: bytes) -> None:
        self._hint.set()


class Hints:
    """Publishes and hears hints."""

    def __init__(self, clients: RedisClients) -> None:
        """Use these clients."""
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._waiting: set[str] = set()
        self._sending: asyncio.Handle | None = None

    def publish(self, channel: str) -> None:
        """Have a hint sent soon. Returns at once, never raises, starts no task."""
        self._waiting.add(channel)
        if self._sending is None:
            self._sending = self._loop.call_soon(self._send)

    def listen(self, channel: str) -> Listener:
        """Listen to a channel from now on; ends with the clients."""
        return Listener(self._clients, channel)

    def _send(self) -> None:
        """Send what waits. What is hinted at until the gap has passed is one hint: each costs a look."""
        self._sending = None
        if self._waiting:
            self._sending = self._loop.call_later(_GAP_S, self._send)
            channels, self._waiting = self._waiting, set()
            for channel in channels:
                self._clients.hot.execute("PUBLISH", channel, b"").add_done_callback(_forget)


def _forget(published: "asyncio.Future[Any]") -> None:
    """A hint that was not sent is nobody's error."""
    if not published.cancelled():
        published.exception()
