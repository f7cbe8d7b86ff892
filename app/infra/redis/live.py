"""`LiveChannel`: every event that the relay publishes, heard at once over Redis pub/sub.

What is heard may be doubled, late, or missing: whoever listens compares sequences and reads PostgreSQL, and
does so whenever it is told `missed`. Whoever may write to Redis can publish, and ids and types go to clients
as lines of their streams: what has not the form of an event is dropped here, and the log says so. Nothing is
subscribed to while nobody listens. If the process dies here, the server forgets the subscription with the
connection.
"""

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from app.contracts import streams
from app.hotpath.subscriptions import Subscription
from app.infra.redis.clients import RedisClients
from app.observability.logging import Rarely, logger

_Type = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,100}\Z")]
_Subject = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
_Sequence = Annotated[int, Meta(ge=1, lt=2**31)]

log = logger("live")


class Heard(msgspec.Struct, frozen=True):
    """What of an envelope says who wants it. `id` is `<subject>:<sequence>`, nothing has a line end."""

    id: str
    type: _Type
    subject: _Subject
    sequence: _Sequence


_decoder: Final = msgspec.json.Decoder(Heard)


def heard_in(payload: bytes) -> Heard | None:
    """What an envelope says; None where it is none of ours."""
    try:
        heard = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return heard if heard.id == f"{heard.subject}:{heard.sequence}" else None


class LiveChannel:
    """The channel of one environment."""

    def __init__(self, clients: RedisClients) -> None:
        """Prepare; `open` subscribes."""
        self._clients = clients
        self._subscription: Subscription | None = None
        self._dropped = Rarely()

    @property
    def is_heard(self) -> bool:
        """Whether what is published is heard just now, as far as anybody knows."""
        return self._subscription is not None and self._subscription.is_confirmed

    def open(self, heard: Callable[[Heard, bytes], None], missed: Callable[[], None]) -> None:
        """Hear every event with its envelope as JSON, until `close`.

        `missed` is called whenever the server has confirmed the subscription, the first time too.
        """

        def took(payload: bytes) -> None:
            event = heard_in(payload)
            if event is None:
                self._drop(payload)
            else:
                heard(event, payload)

        if self._subscription is None:
            channel = streams.live(self._clients.environment)
            self._subscription = self._clients.subscriptions.subscribe(channel, took, missed=missed)

    def close(self) -> None:
        """Hear nothing more."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _drop(self, payload: bytes) -> None:
        """Leave out what is nothing of ours; what it hides, PostgreSQL has."""
        if messages := self._dropped.one_more():  # whoever publishes junk publishes much
            log.warning("live_message_dropped", messages=messages, last_bytes=len(payload))
