"""`Effect`: gives every event its effect in PostgreSQL exactly once and in the order of its subject.

What a stream delivers is only a reason to look: the mark of (group, subject) is locked, what is at or below
it is skipped, what is missing before it is read from the log of record. So it changes nothing when a stream
loses, doubles or reorders events, or two processes are given the same. A subject that is held waits behind
its dead letter and is left alone. If the process dies before the commit, nothing happened; after it, the same
events are skipped.
"""

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final

import msgspec

from app.consumer.dispatch import Group, Handler
from app.consumer.projections import Applied
from app.contracts.streams import Envelope
from app.contracts.versions import brought_up
from app.domain.errors import Unavailable
from app.domain.upcasters import VERSIONS
from app.infra.postgres import dead_letters
from app.infra.postgres.dead_letters import DISCARDING, DeadLetter
from app.infra.postgres.leases import STANDSTILL_S
from app.infra.postgres.projections import Effects, Gap, PostgresProjections
from app.infra.redis.streams import Entry
from app.observability import tracing
from app.observability.logging import logger

HANDLER_DEADLINE_S: Final = 12.0
"""A handler waits for nothing but PostgreSQL, which answers or fails sooner than this."""
EVENTS_MAX: Final = 2_000_000_000
LINES_MAX: Final = 50
"""Events of a transaction that have a line each in the log. A line costs more than an event's effect."""

log = logger("effect")


class Delivery(msgspec.Struct):
    """That a subject has come to `last` (a sequence), as far as somebody told us.

    `known` holds the events that were told, by sequence, from `first` on; `entries` the stream entries that
    told them.
    """

    subject: str
    last: int = 0
    known: dict[int, Envelope] = {}
    entries: list[Entry] = []
    first: int = 0

    def add(self, event: Envelope, entry: Entry) -> None:
        """Take one more event in."""
        sequence = event.sequence
        if sequence == self.last + 1 and self.first:  # nearly always
            self.last = sequence
        else:
            self.first = min(self.first or sequence, sequence)
            self.last = max(self.last, sequence)
        self.known[sequence] = event
        self.entries.append(entry)

    @property
    def span(self) -> tuple[int, int]:
        """First and last, where every event in between is known; else two zeros."""
        is_whole = self.first > 0 and len(self.known) == self.last - self.first + 1
        return (self.first, self.last) if is_whole else (0, 0)


class MissingEventsError(Exception):
    """A stream tells of events that PostgreSQL does not have: one of them was put back to an older state."""


class UnknownEventError(Exception):
    """An event of a type or version that this release does not know: a newer one wrote it."""


class HandlerHangsError(Exception):
    """A handler took too long."""


class Effect:
    """Applies events for one group."""

    def __init__(self, group: Group, store: PostgresProjections) -> None:
        """Apply by the table of `group`, in `store`."""
        self.group = group
        self._store = store
        self._handlers: dict[Handler, set[str]] = {}
        for kind, handlers in group.handlers.items():
            for handler in handlers:
                self._handlers.setdefault(handler, set()).add(kind)

    async def apply(
        self,
        deliveries: Sequence[Delivery],
        tokens: Mapping[int, int] | None = None,
        *,
        events_max: int = EVENTS_MAX,
        letters: Sequence[DeadLetter] = (),
    ) -> dict[str, int]:
        """Have every event up to each delivery's last take effect, all of them or none.

        At most `events_max` of each subject. It rests on the leases in `tokens`. `letters` are closed: their
        subjects are not held any more. Returns how far each subject is then (held ones as if at the end).
        Raises Unavailable (nothing is known: do it again), LeaseLostError, MissingEventsError,
        UnknownEventError, and what a handler raises.
        """
        try:
            applied, reached = await self._commit(deliveries, tokens or {}, events_max, letters)
        except Unavailable as error:
            hang = _hang_behind(error)
            if hang is None:
                raise
            raise hang from error
        for afterwards in self.group.afterwards:
            try:
                await afterwards(applied)
            except Exception:  # it is committed: there is nothing to be taken back
                log.exception("afterwards_failed", group=self.group.name)
        return reached

    async def _commit(
        self,
        deliveries: Sequence[Delivery],
        tokens: Mapping[int, int],
        events_max: int,
        letters: Sequence[DeadLetter],
    ) -> tuple[Applied, dict[str, int]]:
        """The transaction: what was applied, and how far each subject is."""
        as_of = monotonic()
        subjects = {delivery.subject: delivery for delivery in deliveries}
        is_all_at_once = events_max == EVENTS_MAX and not letters
        spans = {delivery.subject: delivery.span for delivery in deliveries} if is_all_at_once else {}
        async with self._store.effects(self.group.name, list(subjects), tokens, spans) as effects:
            left_out = await self._close(effects, letters, subjects)
            for subject in effects.held:
                subjects.pop(subject)
            fresh, passed = await self._fresh(effects, subjects, events_max)
            if self.group.needs_orders:
                await effects.load_orders(subjects)
            late = passed
            if len(effects.moved) < len(subjects):
                late |= {e.subject: e.sequence for e in fresh if e.subject not in effects.moved}
            if late:
                await effects.set_marks(late)
            if left_out:
                fresh = [event for event in fresh if event.id not in left_out]
            await self._handle(fresh, effects)
        self._say(fresh)
        reached = {delivery.subject: delivery.last for delivery in deliveries}
        for subject, delivery in subjects.items():
            reached[subject] = min(delivery.last, effects.marks[subject] + events_max)
        return Applied(tuple(fresh), effects.orders, as_of), reached

    def _say(self, fresh: Sequence[Envelope]) -> None:
        """A line for each order event while they are few; of a flow, how many they were."""
        if len(fresh) > LINES_MAX:
            subjects = len({event.subject for event in fresh})
            log.info("events_applied", group=self.group.name, events=len(fresh), subjects=subjects)
            return
        for event in fresh:
            # What became of the order is worth a line; what led to it is there for whoever looks closer.
            say = log.info if event.type.startswith("order.") else log.debug
            say(
                "event_applied",
                group=self.group.name,
                type=event.type,
                subject=event.subject,
                sequence=event.sequence,
                correlation_id=event.correlationid,
                **tracing.named(event.traceparent),
            )

    async def _close(
        self, effects: Effects, letters: Sequence[DeadLetter], subjects: Mapping[str, Delivery]
    ) -> set[str]:
        """Close the letters that nobody else has dealt with; the events (ids) that are to be left out.

        Their subjects are taken up to the last event that there is.
        """
        if not letters:
            return set()
        states = await dead_letters.still_there(effects.connection, letters)
        open_ = [letter for letter in letters if letter.id in states]
        closed = {letter.id: letter.subject for letter in open_}
        await dead_letters.close(effects.connection, effects.group, closed)
        effects.held -= frozenset(closed.values())
        for subject, last in (await effects.last_events(list(closed.values()))).items():
            subjects[subject].last = last or 0
        left_out = [letter for letter in open_ if states[letter.id] == DISCARDING]
        return {f"{letter.subject}:{letter.sequence}" for letter in left_out}

    async def _handle(self, fresh: Sequence[Envelope], effects: Effects) -> None:
        """Run the handlers, each with its events."""
        there = {event.type for event in fresh}
        if there & VERSIONS.old:  # rarely
            fresh = [brought_up(event) for event in fresh]
            there = {event.type for event in fresh}
        unknown = there - self.group.handlers.keys()
        if unknown:
            raise UnknownEventError(min(unknown))
        for handler, types in self._handlers.items():
            events = fresh if there <= types else [event for event in fresh if event.type in types]
            if events:
                await _within_its_time(handler, events, effects)

    async def _fresh(
        self, effects: Effects, subjects: Mapping[str, Delivery], events_max: int
    ) -> tuple[list[Envelope], dict[str, int]]:
        """The events behind the marks, in order, with what was not delivered taken from the log of record.

        And how far subjects are passed over whose first events are in the archive only. That happens to a
        group that is new: no month leaves the database before every group has handled it.
        """
        at_hand = [d for d in subjects.values() if d.subject in effects.moved]
        fresh = [d.known[sequence] for d in at_hand for sequence in range(d.first, d.last + 1)]
        others = [d for d in subjects.values() if d.subject not in effects.moved]
        wanted = {d.subject: _behind(effects, d)[:events_max] for d in others}
        gaps = [
            Gap(delivery.subject, effects.marks[delivery.subject], wanted[delivery.subject][-1])
            for delivery in others
            if any(sequence not in delivery.known for sequence in wanted[delivery.subject])
        ]
        stored = (
            {(event.subject, event.sequence): event for event in await effects.events(gaps)} if gaps else {}
        )
        archived = await effects.archived_through([gap.subject for gap in gaps]) if gaps else {}
        passed = {}
        for delivery in others:
            # What a stream tells may be wrong by billions: nothing is counted up to behind what is missing.
            for sequence in wanted[delivery.subject]:
                event = delivery.known.get(sequence) or stored.get((delivery.subject, sequence))
                if event is not None:
                    fresh.append(event)
                elif sequence > archived.get(delivery.subject, 0):
                    raise MissingEventsError(f"{delivery.subject}:{sequence}")
                else:
                    passed[delivery.subject] = sequence
        return fresh, passed


async def _within_its_time(handler: Handler, events: Sequence[Envelope], effects: Effects) -> None:
    """Run a handler. Raises HandlerHangsError when it, and not PostgreSQL, took too long."""
    started = monotonic()
    deadline = asyncio.timeout(HANDLER_DEADLINE_S)
    try:
        async with deadline:
            await handler(events, effects)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise HandlerHangsError(f"no end after {HANDLER_DEADLINE_S:g} s") from None
    except Unavailable as error:
        if monotonic() - started < STANDSTILL_S:
            raise
        raise HandlerHangsError(f"it kept a transaction waiting: {error}") from error


def _hang_behind(error: BaseException | None) -> HandlerHangsError | None:
    """The handler that hung, where a lost connection is only what followed from it."""
    while error is not None and not isinstance(error, HandlerHangsError):
        error = error.__cause__ or error.__context__
    return error


def _behind(effects: Effects, delivery: Delivery) -> range:
    """The sequences that a delivery asks for and that have had no effect."""
    return range(effects.marks[delivery.subject] + 1, delivery.last + 1)
