"""Daily seals: one hash over all events of a day, chained to the seal of the day before.

A chain shows that one event of the past was changed; a seal shows it even when somebody has computed every
later hash of the subject anew. One seal's hash, kept somewhere else, proves everything up to its day.
"""

import hashlib
from datetime import UTC, date, datetime

import msgspec


class Seal(msgspec.Struct, frozen=True):
    """The seal of one day in UTC.

    `first_event` and `last_event` are ids in order of subject and sequence, None on a day without events;
    `previous_seal` is the hash of the seal before, None for the first.
    """

    day: date
    events: int
    first_event: str | None
    last_event: str | None
    root: bytes
    previous_seal: bytes | None
    sealed_at: datetime
    hash: bytes


class DayOfEvents:
    """Takes a day's events in order of subject (by code points) and sequence; knows what its seal says.

    The root is SHA-256 over one line of JSON an event, `["<subject>",<sequence>,"<hash in hex>"]`, each with
    a line feed behind it.
    """

    def __init__(self) -> None:
        """A day on which nothing has happened yet."""
        self.events = 0
        self.first_event: str | None = None
        self._last: tuple[str, int] | None = None
        self._root = hashlib.sha256()

    def add(self, subject: str, sequence: int, hash: bytes) -> None:
        """The next event."""
        assert self._last is None or (subject, sequence) >= self._last, "events come in order"
        if self._last is None:
            self.first_event = f"{subject}:{sequence}"
        self._last = (subject, sequence)
        self.events += 1
        self._root.update(msgspec.json.encode([subject, sequence, hash.hex()]) + b"\n")

    @property
    def last_event(self) -> str | None:
        """The id of the last event so far."""
        return None if self._last is None else f"{self._last[0]}:{self._last[1]}"

    @property
    def root(self) -> bytes:
        """The hash over all events so far."""
        return self._root.digest()


def seal(day: date, content: DayOfEvents, previous: bytes | None, sealed_at: datetime) -> Seal:
    """Seal a day behind the seal whose hash is `previous`."""
    parts = (day, content.events, content.first_event, content.last_event, content.root, previous, sealed_at)
    return Seal(*parts, hash=seal_hash(*parts))


def seal_hash(  # noqa: PLR0917 - the parts in the order in which they are hashed
    day: date,
    events: int,
    first_event: str | None,
    last_event: str | None,
    root: bytes,
    previous_seal: bytes | None,
    sealed_at: datetime,
) -> bytes:
    """SHA-256 over the hash of the seal before and all that this one says. Times count in microseconds."""
    at = sealed_at.astimezone(UTC).isoformat(timespec="microseconds")
    text = msgspec.json.encode([day.isoformat(), events, first_event, last_event, root.hex(), at])
    return hashlib.sha256((previous_seal or b"") + text).digest()
