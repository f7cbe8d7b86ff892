"""The engine: carries a replay on, one bounded transaction after the other, from being asked for to its end.

Each transaction locks the replay's row, does one piece of work and saves how far it is. So any process may
die at any point, and two may even carry the same replay: each piece is done once. What a handler refuses, or
cannot do, ends the replay with a sentence; a server that is away is the caller's business to wait for.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

import asyncpg
from msgspec.structs import replace

from app.contracts.temporal import ReplayProgress
from app.domain.errors import Unavailable
from app.infra.postgres import replays
from app.infra.postgres.pool import Connection, Database, unavailable_when_away
from app.infra.postgres.replays import Replay
from app.observability.logging import logger
from app.replay.handlers import Handler, MovedError, Telling

BATCH_EVENTS: Final = 5000
KEPT_S: Final = 24 * 3600.0
"""How long what was shown can be applied."""
LOCK_TIMEOUT: Final = "1s"
"""Who waits behind us waits as long; consumers call two seconds a standstill."""
RACE_PAUSE_S: Final = 0.05
_BATCHES_A_SECOND: Final = 4
"""With a limit of the rate: about so many batches a second."""

_DURABLE: Final = frozenset({replays.COMPARING, replays.CHECKING, replays.APPLYING})

log = logger("replay")


class Engine:
    """Carries replays on."""

    def __init__(
        self, database: Database, handlers: Mapping[str, Handler], *, batch_events: int = BATCH_EVENTS
    ) -> None:
        """Work on this database, with these handlers, about so many events a transaction."""
        self._database = database
        self._handlers = handlers
        self._batch_events = batch_events

    async def carry(self, replay_id: str, *, seconds: float) -> ReplayProgress:
        """Carry a replay on for about so long, or to its end. Raises Unavailable, LookupError."""
        until = monotonic() + seconds
        due = monotonic()
        while True:
            replay, events = await self._step(replay_id)
            if replay.rate_per_s and events:
                due = max(due, monotonic() - 1.0) + events / replay.rate_per_s
                await asyncio.sleep(due - monotonic())
            if replay.has_ended or monotonic() >= until:
                break
        return ReplayProgress(
            state=replay.state,
            is_over=replay.has_ended,
            done=replay.done,
            total=replay.total,
            changes=replay.changes,
            applied=replay.applied,
        )

    async def _step(self, replay_id: str) -> tuple[Replay, int]:
        """One piece of work; the replay after it, and how many events it was."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(replays.SQL["one"], replay_id)
            if row is None:
                raise LookupError(replay_id)
            seen = replays.replay_of(row)
            handler = self._handlers.get(seen.handler)
            if handler is None:
                raise Unavailable("replay", f"this release has no handler {seen.handler}")
            try:
                with unavailable_when_away():
                    after, events = await self._committed(connection, seen, handler)
                if seen.state == replays.APPLYING and isinstance(handler, Telling):
                    await handler.tell(connection, seen, after)
            except MovedError as moved:
                after, events = await self._give_up(connection, seen, handler, replays.REFUSED, str(moved)), 0
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name != replays.ALONE:
                    raise
                raise Unavailable("replay", f"another replay of {seen.handler} is being applied") from error
            except Unavailable:
                raise
            except Exception as error:
                sentence = f"{type(error).__name__}: {error}"
                after, events = await self._give_up(connection, seen, handler, replays.FAILED, sentence), 0
                log.exception("replay_failed", replay=replay_id, handler=seen.handler)
        if after.state != seen.state:
            log.info("replay_goes_on", replay=replay_id, handler=after.handler, state=after.state)
        return after, events

    async def _committed(self, connection: Connection, seen: Replay, handler: Handler) -> tuple[Replay, int]:
        """The transaction. Where somebody else was here meanwhile, nothing is done: look again."""
        try:
            async with self._locked(connection, seen, handler) as replay:
                if replay.state != seen.state:
                    return replay, 0
                after, events = await self._work(connection, replay, handler)
                await replays.save(connection, after)
                return after, events
        except asyncpg.SerializationError:
            await asyncio.sleep(RACE_PAUSE_S)
            return seen, 0

    @asynccontextmanager
    async def _locked(self, connection: Connection, seen: Replay, handler: Handler) -> AsyncIterator[Replay]:
        """A transaction in which the replay is locked, after the tables that its handler wants for itself."""
        async with connection.transaction(isolation=handler.isolation):
            if seen.state not in _DURABLE:  # what is lost with the server is done again
                await connection.execute("SET LOCAL synchronous_commit = off")
            if seen.state == replays.APPLYING and handler.locks:
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                tables = ", ".join(handler.locks)
                await connection.execute(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")
            yield await replays.lock(connection, seen.id)

    async def _work(self, connection: Connection, replay: Replay, handler: Handler) -> tuple[Replay, int]:
        match replay.state:
            case replays.WAITING:
                await self._forget_old(connection)
                total = await handler.prepare(connection, replay)
                return replace(replay, state=replays.READING, total=total), 0
            case replays.READING:
                return await self._read(connection, replay, handler)
            case replays.COMPARING:
                return await self._compare(connection, replay, handler), 0
            case replays.CHECKING:
                return await self._check(connection, replay, handler), 0
            case replays.APPLYING:
                return await self._apply(connection, replay, handler)
            case _:
                if replay.state != replays.SHOWN:
                    await handler.forget(connection, replay)
                return replay, 0

    async def _read(self, connection: Connection, replay: Replay, handler: Handler) -> tuple[Replay, int]:
        read = await handler.read(connection, replay, _batch(self._batch_events, replay.rate_per_s))
        await replays.add_changes(connection, replay.id, replay.changes, read.changes)
        after = replace(
            replay,
            cursor=read.cursor,
            state=replays.COMPARING if read.cursor is None else replays.READING,
            done=replay.done + read.events,
            changes=replay.changes + len(read.changes),
        )
        return after, read.events

    async def _compare(self, connection: Connection, replay: Replay, handler: Handler) -> Replay:
        summary = await handler.compare(connection, replay)
        changes = int(summary.get("changes", replay.changes))
        state = replays.SHOWN
        if replay.is_applied:
            state = replays.CHECKING if changes else replays.APPLIED
        if not changes:
            await handler.forget(connection, replay)
        return replace(replay, state=state, changes=changes, summary={**summary, "changes": changes})

    async def _check(self, connection: Connection, replay: Replay, handler: Handler) -> Replay:
        if replay.checked >= replay.changes:
            return replace(replay, state=replays.APPLYING)
        found = await replays.changes_behind(connection, replay.id, replay.checked, handler.changes_at_once)
        await handler.verify(connection, replay, found)
        return replace(replay, checked=found[-1].number)

    async def _apply(self, connection: Connection, replay: Replay, handler: Handler) -> tuple[Replay, int]:
        """Make the next changes; for the limit of the rate each is an event, unless tables are locked."""
        limit = _batch(handler.changes_at_once, None if handler.locks else replay.rate_per_s)
        found = await replays.changes_behind(connection, replay.id, replay.applied, limit)
        more = await handler.apply(connection, replay, found)
        applied = found[-1].number
        state = replays.APPLYING
        if applied >= replay.changes:
            state = replays.APPLIED
            await handler.forget(connection, replay)
        after = replace(replay, state=state, applied=applied, summary={**replay.summary, **more})
        return after, 0 if handler.locks else len(found)

    async def _give_up(
        self, connection: Connection, seen: Replay, handler: Handler, state: str, sentence: str
    ) -> Replay:
        """End a replay; what it has done stays, and is said."""
        async with connection.transaction():
            replay = await replays.lock(connection, seen.id)
            if replay.state != seen.state:
                return replay
            if replay.applied:
                sentence += f" {replay.applied} of {replay.changes} changes had been applied before."
            replay = replace(replay, state=state, error=sentence)
            await handler.forget(connection, replay)
            await replays.save(connection, replay)
            return replay

    async def _forget_old(self, connection: Connection) -> None:
        """Clear away what was shown long ago and has not been applied."""
        for row in await connection.fetch(replays.SQL["forgotten"], KEPT_S):
            old = await connection.fetchrow(replays.SQL["one"], row["id"])
            handler = self._handlers.get(row["handler"])
            if old is not None and handler is not None:
                await handler.forget(connection, replays.replay_of(old))
                await connection.execute(replays.SQL["expire"], row["id"])


def _batch(most: int, rate_per_s: int | None) -> int:
    """How many are taken in one transaction: fewer where a limit of the rate wants it smooth."""
    return min(most, max(1, rate_per_s // _BATCHES_A_SECOND)) if rate_per_s else most
