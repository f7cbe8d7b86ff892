"""The hash chain of events: each event's hash covers the one before it for the same subject.

Whoever changes, drops or inserts an event of the past must recompute every later hash of its subject; the
audit recomputes them all.
"""

import hashlib
from datetime import UTC, datetime

import msgspec


class LinkedEvent(msgspec.Struct, frozen=True):
    """An event as it is stored: `data` is the exact JSON text that the hash covers."""

    subject: str
    sequence: int
    type: str
    time: datetime
    correlation_id: str
    traceparent: str | None
    data: str
    previous_hash: bytes | None
    hash: bytes


def link(  # noqa: PLR0917 - the parts in the order in which they are hashed
    previous: bytes | None,
    subject: str,
    sequence: int,
    kind: str,
    time: datetime,
    correlation_id: str,
    traceparent: str | None,
    data: str,
) -> bytes:
    """SHA-256 over the previous hash and everything that the event says. Times count in microseconds."""
    at = time.astimezone(UTC).isoformat(timespec="microseconds")
    text = msgspec.json.encode([subject, sequence, kind, at, correlation_id, traceparent, data])
    return hashlib.sha256((previous or b"") + text).digest()


_encoder = msgspec.json.Encoder()


def chain(  # noqa: PLR0917 - the same
    previous: bytes | None,
    subject: str,
    version: int,
    events: tuple[msgspec.Struct, ...],
    time: datetime,
    correlation_id: str,
    traceparent: str | None,
) -> tuple[LinkedEvent, ...]:
    """Link `events` behind the subject's event number `version`, whose hash is `previous`."""
    linked = []
    for sequence, event in enumerate(events, version + 1):
        kind = str(event.__struct_config__.tag)
        data = _encoder.encode(event).decode()
        current = link(previous, subject, sequence, kind, time, correlation_id, traceparent, data)
        linked.append(
            LinkedEvent(subject, sequence, kind, time, correlation_id, traceparent, data, previous, current)
        )
        previous = current
    return tuple(linked)
