"""`Rebuild`: a projection built anew from events beside the live one, compared, and put in its place.

The shadow is cut where the group's marks are when the replay begins; events are read in batches, in any order
of time, and count up to the cut. Then what the consumers have done meanwhile is caught up with. The
comparison is one snapshot of live rows and marks, so it is exact while the consumers go on, and stops nobody.

What is applied is the difference that was shown. Consumers add to a live row what they would have added to
the rebuilt one, so the difference stays while both grow. All rows that differ are looked at again before the
first is touched, and then, five thousand at a time, while nobody writes to the table (some milliseconds):
either each difference is the one on record, and the rows become the rebuilt ones in that very transaction, or
none of them is changed.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from app.contracts.streams import Envelope, happened_at
from app.contracts.versions import brought_up
from app.infra.postgres import replay_events, replays
from app.infra.postgres.pool import Connection
from app.infra.postgres.projections import Effects
from app.infra.postgres.replay_events import Wanted, event_batches
from app.infra.postgres.replay_shadow import Shadow
from app.infra.postgres.replays import Asked, Change, Replay
from app.projections.rebuilt import Projection
from app.replay.asking import refused
from app.replay.handlers import Isolation, MovedError, Read

CAUGHT_UP_EVENTS_MAX: Final = 200
"""So many events may be left to the transaction that compares."""
SUBJECTS_MAX: Final = 2000

_CATCHING_UP: Final = "catching up"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Rebuild:
    """The handler of one projection."""

    isolation: Isolation = "repeatable_read"
    changes_at_once: Final = 5000

    def __init__(self, projection: Projection) -> None:
        """Rebuild this one."""
        self.projection = projection
        self.name = projection.name
        self.about = f"rebuild {projection.about}"
        self.locks = (projection.table,)

    def check(self, asked: Asked) -> None:
        """A row is rebuilt as a whole or not at all. Raises Refused."""
        wanted, span = asked.selection, self.projection.span
        if wanted.type is not None:
            raise refused("/type", f"A row of {self.name} is the sum of all types; leave `type` out.")
        if wanted.order_id is not None:
            raise refused("/order", f"A row of {self.name} is the sum of many orders; leave `order` out.")
        for name, time in (("from", wanted.since), ("to", wanted.until)):
            if time is None:
                continue
            if span is None:
                raise refused(f"/{name}", f"A row of {self.name} is of all times; leave `{name}` out.")
            if (time - _EPOCH) % span:
                unit = "day" if span.days else "minute"
                raise refused(f"/{name}", f"A row of {self.name} is a whole {unit}: give the start of one.")
        if asked.parameters:
            raise refused("/parameters", f"{self.name} takes none.")

    async def prepare(self, connection: Connection, replay: Replay) -> int:
        """Make the shadow."""
        await self._shadow(connection, replay).make(self.projection.group)
        return await replay_events.count(connection, self._wanted(replay))

    async def read(self, connection: Connection, replay: Replay, size: int) -> Read:
        """Fill the shadow with the next events up to the cut, or with what was done since."""
        shadow = self._shadow(connection, replay)
        await shadow.enter()
        if replay.cursor == _CATCHING_UP:
            caught_up = await self._catch_up(connection, shadow, replay)
            return Read(None if caught_up <= CAUGHT_UP_EVENTS_MAX else _CATCHING_UP, 0)
        last = await shadow.last_subject()
        if last is None:
            return Read(_CATCHING_UP, 0)
        wanted = msgspec.structs.replace(self._wanted(replay), last_subject=last)
        batch = await anext(event_batches(connection, wanted, replay.cursor, size=size))
        if batch.events:
            subjects = list({event.subject for event in batch.events})
            allowed = await shadow.allowed(subjects)
            cut = [event for event in batch.events if event.sequence <= allowed.get(event.subject, 0)]
            await self._handle(connection, shadow, cut)
        return Read(batch.cursor or _CATCHING_UP, len(batch.events))

    async def compare(self, connection: Connection, replay: Replay) -> dict[str, Any]:
        """Put every row on record that differs in this very snapshot."""
        shadow = self._shadow(connection, replay)
        await self._up_to_now(connection, shadow, replay)
        compared = await shadow.compare()
        await shadow.record()
        sums = await replays.sums(connection, replay.id, self.projection.sums_by)
        return {
            "rows": compared.rows,
            "rebuilt_rows": compared.rebuilt_rows,
            "changes": compared.differing,
            "live_hash": compared.hash,
            "rebuilt_hash": compared.rebuilt_hash,
            "sums": sums,
        }

    async def verify(self, connection: Connection, replay: Replay, changes: Sequence[Change]) -> None:
        """The rows still differ as they were shown, so far. Raises MovedError."""
        await self._look_again(connection, replay, changes)

    async def apply(
        self,
        connection: Connection,
        replay: Replay,
        changes: Sequence[Change],
    ) -> dict[str, Any]:
        """Nobody else writes to the table now: catch up, look again, and write. Raises MovedError."""
        shadow = await self._look_again(connection, replay, changes)
        await shadow.write()
        return {}

    async def forget(self, connection: Connection, replay: Replay) -> None:
        """Drop the shadow."""
        await self._shadow(connection, replay).drop()

    async def _look_again(self, connection: Connection, replay: Replay, changes: Sequence[Change]) -> Shadow:
        shadow = self._shadow(connection, replay)
        await self._up_to_now(connection, shadow, replay)
        if moved := await shadow.look_again(changes[0].number, changes[-1].number):
            raise MovedError(f"The difference is not the one that was shown, at {', '.join(moved)}.")
        return shadow

    async def _up_to_now(self, connection: Connection, shadow: Shadow, replay: Replay) -> None:
        """Catch up to this very snapshot."""
        await shadow.enter()
        while await self._catch_up(connection, shadow, replay):
            pass

    async def _catch_up(self, connection: Connection, shadow: Shadow, replay: Replay) -> int:
        """Give the shadow what some subjects' marks have moved by; how many events that were."""
        gaps = await shadow.moved(self.projection.group, SUBJECTS_MAX)
        if not gaps:
            return 0
        wanted = self._wanted(replay)
        found = await Effects(connection, self.projection.group, "replay", {}).events(gaps)
        events = [event for event in map(brought_up, found) if _is_wanted(event, wanted)]
        await self._handle(connection, shadow, events)
        await shadow.advance(gaps)
        return len(found)

    async def _handle(self, connection: Connection, shadow: Shadow, events: Sequence[Envelope]) -> None:
        """Run the projection's handler, in the shadow."""
        if not events:
            return
        subjects = list({event.subject for event in events})
        if out := await shadow.left_out(self.projection.group, subjects):
            events = [event for event in events if (event.subject, event.sequence) not in out]
        effects = Effects(connection, self.projection.group, "replay", {})
        if self.projection.needs_orders:
            await effects.load_orders(subjects)
        await self.projection.handler(events, effects)

    def _shadow(self, connection: Connection, replay: Replay) -> Shadow:
        wanted = replay.selection
        return Shadow(connection, replay.id, self.projection, wanted.since, wanted.until)

    def _wanted(self, replay: Replay) -> Wanted:
        return Wanted(self.projection.types, replay.selection.since, replay.selection.until)


def _is_wanted(event: Envelope, wanted: Wanted) -> bool:
    if event.type not in wanted.types:
        return False
    if wanted.since is None and wanted.until is None:
        return True
    at = happened_at(event)
    return (wanted.since is None or at >= wanted.since) and (wanted.until is None or at < wanted.until)
