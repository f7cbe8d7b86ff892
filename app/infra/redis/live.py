"""`LiveChannel`: every event that the relay publishes, heard at once over Redis pub/sub.

What is heard may be doubled, late, or missing: whoever listens compares sequences and reads PostgreSQL, and
does so whenever it is told `missed`. Nothing is subscribed to while nobody listens. If the process dies here,
the server forgets the subscription with the connection.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from app.contracts import streams
from app.hotpath.subscriptions import Subscription
from app.infra.redis.clients import RedisClients


class Heard(msgspec.Struct, frozen=True):
    """What of an envelope says who wants it."""

    id: str
    type: str
    subject: str
    sequence: int


_decoder: Final = msgspec.json.Decoder(Heard)


class LiveChannel:
    """The channel of one environment."""

    def __init__(self, clients: RedisClients) -> None:
        """Prepare; `open` subscribes."""
        self._clients = clients
        self._subscription: Subscription | None = None

    @property
    def is_heard(self) -> bool:
        """Whether what is published is heard just now, as far as anybody knows."""
        return self._subscription is not None and self._subscription.is_confirmed

    def open(self, heard: Callable[[Heard, bytes], None], missed: Callable[[], None]) -> None:
        """Hear every event with its envelope as JSON, until `close`.

        `missed` is called whenever the server has confirmed the subscription, the first time too.
        """

        def took(payload: bytes) -> None:
            # What is nothing of ours is left out; what it hides, PostgreSQL has.
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                heard(_decoder.decode(payload), payload)

        if self._subscription is None:
            channel = streams.live(self._clients.environment)
            self._subscription = self._clients.subscriptions.subscribe(channel, took, missed=missed)

    def close(self) -> None:
        """Hear nothing more."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
