"""`Hints`: "look now", said to whoever polls otherwise. Over Redis pub/sub.

A hint may be lost, doubled or late: whoever listens also polls. Publishing costs the caller nothing and never
raises; hints of one moment become one. If the process dies here, the poll is the net.
"""

import asyncio
import random
from contextlib import suppress
from typing import Any, Final

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from app.domain.errors import Unavailable
from app.infra.redis.clients import RedisClients
from app.observability.logging import logger

_QUIET_S: Final = 30.0
"""A connection that said nothing for this long is asked whether it is alive."""
_GAP_S: Final = 0.01
"""At least so much time passes between two hints of one process; the first goes at once."""
_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_MAX_S: Final = 2.0

log = logger("hints")


class Listener:
    """One channel, heard. It connects again by itself, and reports a hint whenever it did."""

    def __init__(self, clients: RedisClients, channel: str) -> None:
        """Start to listen in the background."""
        self._clients = clients
        self._channel = channel
        self._hint = asyncio.Event()
        self._task = clients.start(self._listen())

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
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        pause = _BACKOFF_FIRST_S
        while True:
            pubsub = self._clients.blocking.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(self._channel)
                self._hint.set()  # something may have been missed
                pause = _BACKOFF_FIRST_S
                await self._hear(pubsub)
            except (RedisError, OSError) as error:
                log.debug("hints_are_not_heard", channel=self._channel, error=type(error).__name__)
            finally:
                with suppress(RedisError, OSError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
            pause = min(pause * 2, _BACKOFF_MAX_S)

    async def _hear(self, pubsub: PubSub) -> None:
        """Report what comes, until the connection breaks (raises) or goes silent (returns)."""
        asked = False
        while True:
            message: dict[str, Any] | None = await pubsub.get_message(timeout=_QUIET_S)
            if message is not None:
                asked = False
                if message["type"] == "message":
                    self._hint.set()
                continue
            if asked:
                return
            asked = True
            await pubsub.ping()


class Hints:
    """Publishes and hears hints."""

    def __init__(self, clients: RedisClients) -> None:
        """Use these clients."""
        self._clients = clients
        self._waiting: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    def publish(self, channel: str) -> None:
        """Have a hint sent soon. Returns at once, never raises, keeps at most one task."""
        self._waiting.add(channel)
        if self._sending is None or self._sending.done():
            self._sending = self._clients.start(self._send())

    def listen(self, channel: str) -> Listener:
        """Listen to a channel from now on; ends with the clients."""
        return Listener(self._clients, channel)

    async def _send(self) -> None:
        while self._waiting:
            channels, self._waiting = self._waiting, set()
            with suppress(Unavailable, RedisError):
                async with self._clients.bounded():
                    for channel in channels:
                        await self._clients.writes.publish(channel, b"")
            await asyncio.sleep(
                _GAP_S
            )  # what is hinted at meanwhile is one hint: each costs the listener a look
