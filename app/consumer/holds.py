"""`Holds`: the subjects whose events cannot have their effect, each with the time of its next attempt.

Only such a subject waits; all others go on. Its entries stay unacknowledged and are tried for ever, less and
less often. If the process dies here, others claim the entries and find out for themselves.
"""

import random
import time
from typing import Final

import msgspec

from app.consumer.effect import Delivery
from app.infra.redis.streams import Entry
from app.observability.logging import logger

SUBJECTS_MAX: Final = 10_000
"""With so many held back nothing new is read: it is not the subjects that are at fault."""
FIRST_S: Final = 1.0
LONGEST_S: Final = 300.0

log = logger("holds")


class Held(msgspec.Struct):
    """One subject that is held back. `due` is on the monotonic clock, in seconds."""

    delivery: Delivery
    entries: dict[tuple[int, bytes], Entry]
    attempts: int = 0
    due: float = 0.0
    said: str = ""


class Holds:
    """The subjects that are held back."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._held: dict[str, Held] = {}

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be read."""
        return len(self._held) >= SUBJECTS_MAX

    def takes(self, delivery: Delivery) -> bool:
        """Whether the delivery's subject is held back; what is delivered then waits with it."""
        held = self._held.get(delivery.subject)
        if held is None:
            return False
        held.delivery.last = max(held.delivery.last, delivery.last)
        held.entries.update({(entry.shard, entry.id): entry for entry in delivery.entries})
        return True

    def hold(self, delivery: Delivery, error: Exception) -> None:
        """Hold a subject back (again), because of this error. The error is said once, and when it changes."""
        held = self._held.get(delivery.subject)
        if held is None:
            entries = {(entry.shard, entry.id): entry for entry in delivery.entries}
            held = self._held[delivery.subject] = Held(Delivery(delivery.subject, delivery.last), entries)
        said = repr(error)
        if said != held.said:
            log.error("held_back", subject=delivery.subject, error=said, exc_info=error)
            held.said = said
        wait_s = min(LONGEST_S, FIRST_S * 2**held.attempts)
        held.attempts = min(held.attempts + 1, 30)
        held.due = time.monotonic() + wait_s * random.uniform(0.5, 1)  # noqa: S311 - jitter

    def due(self) -> list[Delivery]:
        """What is to be tried again now. The events are taken from the log of record."""
        now = time.monotonic()
        return [
            Delivery(subject, held.delivery.last, {}, list(held.entries.values()))
            for subject, held in self._held.items()
            if held.due <= now
        ]

    def release(self, delivery: Delivery) -> None:
        """A subject that may have been held back is well."""
        if self._held.pop(delivery.subject, None) is not None:
            log.info("held_back_no_more", subject=delivery.subject)
