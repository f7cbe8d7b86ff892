"""The hash chain of events: each event's hash covers the one before it for the same subject.

Whoever changes, drops or inserts an event of the past must recompute every later hash of its subject; the
audit recomputes them all.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime

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


class Break(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the past is not what it was: `kind` for programs, `detail` for people, and the place."""

    kind: str
    detail: str
    subject: str | None = None
    sequence: int | None = None
    day: date | None = None


class Inspection:
    """Follows chains as they are stored, event by event in order of subject and sequence.

    It holds one event. That a chain has lost its end is found by whoever knows how long it was.
    """

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.last: LinkedEvent | None = None

    def follow(self, event: LinkedEvent, *, continues: bool = False) -> Iterator[Break]:
        """What is wrong with the next event, and with its place behind the one before.

        `continues`: what came before it is somewhere else, and somebody else looks at that.
        """
        before = self.last if self.last is not None and self.last.subject == event.subject else None
        self.last = event
        if continues and before is None and event.previous_hash is not None:
            expected = event.sequence
        else:
            expected = 1 if before is None else before.sequence + 1
        if event.sequence > expected:
            last = event.sequence - 1
            lost = f"{expected} is" if last == expected else f"{expected} to {last} are"
            yield _break("missing", event, f"what came before it is gone: {lost} missing")
        elif event.sequence < expected:
            yield _break("doubled", event, "there is another event with this number")
        elif before is None and event.previous_hash is not None and not continues:
            yield _break("unlinked", event, "it is the first, and yet it names one before it")
        elif before is not None and event.previous_hash != before.hash:
            yield _break("unlinked", event, "it does not follow the event before it, as that is now")
        made_of = (event.type, event.time, event.correlation_id, event.traceparent, event.data)
        if link(event.previous_hash, event.subject, event.sequence, *made_of) != event.hash:
            yield _break("changed", event, "its hash is not that of its contents")


def _break(kind: str, event: LinkedEvent, detail: str) -> Break:
    return Break(kind, detail, event.subject, event.sequence)
