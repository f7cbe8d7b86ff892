"""`Effect`: gives every event its effect in PostgreSQL exactly once and in the order of its subject.

What a stream delivers is only a reason to look: the mark of (group, subject) is locked, what is at or below
it is skipped, what is missing before it is read from the log of record. So it changes nothing when a stream
loses, doubles or reorders events, or two processes are given the same. If the process dies before the commit,
nothing happened; after it, the same events are skipped.
"""

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic

import msgspec

from app.consumer.dispatch import Group
from app.consumer.projections import Applied, Changes
from app.contracts.streams import Envelope
from app.infra.postgres.projections import Effects, Gap, PostgresProjections
from app.infra.redis.streams import Entry
from app.observability.logging import logger

log = logger("effect")


class Delivery(msgspec.Struct):
    """That a subject has come to `last` (a sequence), as far as somebody told us.

    `known` holds the events that were told, by sequence; `entries` the stream entries that told them.
    """

    subject: str
    last: int = 0
    known: dict[int, Envelope] = {}
    entries: list[Entry] = []

    def add(self, event: Envelope, entry: Entry) -> None:
        """Take one more event in."""
        self.last = max(self.last, event.sequence)
        self.known[event.sequence] = event
        self.entries.append(entry)


class MissingEventsError(Exception):
    """A stream tells of events that PostgreSQL does not have: one of them was put back to an older state."""


class Effect:
    """Applies events for one group."""

    def __init__(self, group: Group, store: PostgresProjections) -> None:
        """Apply by the tables of `group`, in `store`."""
        self._group = group
        self._store = store

    async def apply(self, deliveries: Sequence[Delivery]) -> None:
        """Have every event up to each delivery's last take effect, all of them or none.

        Raises Unavailable (nothing is known: do it again), MissingEventsError, and what a handler raises.
        """
        as_of = monotonic()
        subjects = {delivery.subject: delivery for delivery in deliveries}
        async with self._store.effects(self._group.name, list(subjects)) as effects:
            fresh = await self._fresh(effects, subjects)
            changes = Changes(await effects.orders([s for s in subjects if s.startswith("ord_")]))
            for event in fresh:
                for handler in self._group.handlers.get(event.type, ()):
                    handler(event, changes)
            if fresh:
                await effects.set_marks({event.subject: event.sequence for event in fresh})
            await effects.add_to_summary(changes.days)
        for event in fresh:
            # What became of the order is worth a line; what led to it is there for whoever looks closer.
            say = log.info if event.type.startswith("order.") else log.debug
            say(
                "event_applied",
                group=self._group.name,
                type=event.type,
                subject=event.subject,
                sequence=event.sequence,
                correlation_id=event.correlationid,
            )
        applied = Applied(tuple(fresh), changes.orders, as_of)
        for afterwards in self._group.afterwards:
            await afterwards(applied)

    async def _fresh(self, effects: Effects, subjects: Mapping[str, Delivery]) -> list[Envelope]:
        """The events behind the marks, in order, with what was not delivered taken from the log of record."""
        gaps = [
            Gap(delivery.subject, effects.marks[delivery.subject], delivery.last)
            for delivery in subjects.values()
            if any(sequence not in delivery.known for sequence in _behind(effects, delivery))
        ]
        stored = (
            {(event.subject, event.sequence): event for event in await effects.events(gaps)} if gaps else {}
        )
        fresh = []
        for delivery in subjects.values():
            for sequence in _behind(effects, delivery):
                event = delivery.known.get(sequence) or stored.get((delivery.subject, sequence))
                if event is None:
                    raise MissingEventsError(f"{delivery.subject}:{sequence}")
                fresh.append(event)
        return fresh


def _behind(effects: Effects, delivery: Delivery) -> Iterable[int]:
    """The sequences that a delivery asks for and that have had no effect."""
    return range(effects.marks[delivery.subject] + 1, delivery.last + 1)
