"""Webhooks: an endpoint is a URL of somebody else's that events are sent to; a delivery is one event to one.

The signature is Standard Webhooks' (`v1`): HMAC-SHA256 over `{id}.{timestamp}.{body}`. The ports say what a
delivery needs of the world: the record of it, and somebody who sends.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES: Final = 32
TEST_TYPE: Final = "webhook.test.v1"
"""What is sent when somebody wants to see whether anything arrives. It is no event: nothing has happened."""


class DeliveryState(StrEnum):
    """Where a delivery stands. `pending`: it was not tried yet, or is to be tried again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def secret_of(random: bytes) -> str:
    """The secret that so many random bytes (`SECRET_BYTES`) make, as its owner is shown it."""
    return SECRET_PREFIX + base64.b64encode(random).decode()


def signature(secrets: Sequence[str], delivery_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header: one signature for each secret, with spaces between."""
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    keys = (base64.b64decode(secret.removeprefix(SECRET_PREFIX)) for secret in secrets)
    macs = (hmac.digest(key, signed, hashlib.sha256) for key in keys)
    return " ".join("v1," + base64.b64encode(mac).decode() for mac in macs)


class Post(msgspec.Struct, frozen=True):
    """What is sent: one delivery to one endpoint. `secrets` are never shown, not even in a traceback.

    `traceparent` is the event's.
    """

    delivery_id: str
    endpoint_id: str
    url: str
    body: bytes
    secrets: tuple[str, ...]
    traceparent: str | None = None

    def __repr__(self) -> str:
        return f"Post({self.delivery_id!r}, {self.endpoint_id!r})"


class Receipt(msgspec.Struct, frozen=True):
    """What came back: a status, or none and the error. `retry_after_s` is what the receiver asked for."""

    status: int | None
    error: str | None = None
    retry_after_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants nothing any more."""
        return self.status == 410


class Outcome(msgspec.Struct, frozen=True):
    """What became of an attempt: where the delivery stands, and when it is due again (seconds from now).

    `state` is None where a later round has the delivery: somebody had it sent again. `was_sent` is False
    where there was no attempt. One that `waits` is carried by the record: a later round begins in its turn.
    """

    state: DeliveryState | None
    was_sent: bool
    again_in_s: float = 0.0
    waits: bool = False


class Deliveries(Protocol):
    """The deliveries of record. All methods may raise `Unavailable`."""

    async def begin(self, delivery_id: str, round_: int, *, may_wait: bool) -> Post | Outcome:
        """What to send now; or what became of the delivery, which waits where its endpoint is left alone.

        Who may not wait any more has failed instead.
        """
        ...

    async def wait(self, post: Post) -> Outcome:
        """Too much is on its way to this endpoint already: take a place in the line."""
        ...

    async def end(self, post: Post, round_: int, receipt: Receipt, again_in_s: float | None) -> Outcome:
        """Put an attempt on record; one that failed is due again in so many seconds, or (None) has failed."""
        ...


class Sender(Protocol):
    """Sends."""

    async def send(self, post: Post) -> Receipt:
        """One attempt. It ends in time and raises nothing: what goes wrong is in the receipt."""
        ...
