"""`EventOutbox`: the events that no stream has yet, for the one relay that leads.

A row is written in the transaction of its event and deleted when the stream has answered, so nothing is
skipped however transactions overlap. The lead is a lock of this connection: if the process dies here, or says
nothing for a moment, the lock is free, and what was published but not deleted is published again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Final

import asyncpg
import msgspec

from app.contracts.documents import rfc3339
from app.contracts.streams import Envelope
from app.infra.postgres.pool import COMMAND_TIMEOUT_S, CONNECT_TIMEOUT_S, Connection, unavailable_when_away
from app.infra.postgres.statements import statements

SQL: Final = statements("event_outbox")
LOCK: Final = 0x72656C6179  # "relay": one number for everybody who relays this database

SILENCE_S: Final = 1.3
"""After how long a relay that says nothing is believed to be dead."""
STAY_S: Final = 0.3
LATELY: Final = timedelta(days=1)
"""What waits has happened within this of now, as a rule: there it is looked for first."""

_CLOSE_TIMEOUT_S: Final = 2.0


class Waiting(msgspec.Struct, frozen=True):
    """One event that waits in the outbox."""

    position: int
    envelope: Envelope


class Batch(msgspec.Struct, frozen=True):
    """The oldest events that wait, in order; `age_s` is the age of the first, 0 when there is none."""

    events: tuple[Waiting, ...]
    age_s: float


def envelope(row: asyncpg.Record, source: str) -> Envelope:
    """An event's row as it is published."""
    return Envelope(
        id=f"{row['subject']}:{row['sequence']}",
        type=row["type"],
        source=source,
        subject=row["subject"],
        time=rfc3339(row["time"]),
        sequence=row["sequence"],
        correlationid=row["correlation_id"],
        data=msgspec.Raw(row["data"].encode()),
        traceparent=row["traceparent"],
    )


class EventOutbox:
    """The outbox, seen by a relay. Every method raises Unavailable."""

    def __init__(self, connection: Connection, source: str) -> None:
        """Work on a connection of one's own; events name `source` as theirs."""
        self._connection = connection
        self._source = source
        self._turn = asyncio.Lock()

    async def lead(self) -> bool:
        """Become the relay that leads, for as long as the connection lives; False when another one does."""
        async with self._statement() as connection:
            return bool(await connection.fetchval(SQL["lead"], LOCK))

    async def stay(self) -> None:
        """Keep the lead while nothing else is asked of the server: who says nothing loses it."""
        while True:
            await asyncio.sleep(STAY_S)
            async with self._statement() as connection:
                await connection.execute("SELECT")

    async def waiting(self, batch_size_max: int) -> Batch:
        """The oldest events that wait."""
        now = datetime.now(UTC)
        async with self._statement() as connection:
            rows = await connection.fetch(SQL["waiting"], batch_size_max, now - LATELY, now + LATELY)
            if long := [row["position"] for row in rows if row["type"] is None]:
                rows = [row for row in rows if row["type"] is not None]
                rows += await connection.fetch(SQL["waiting_long"], long)
                rows.sort(key=itemgetter("position"))
        events = tuple(Waiting(row["position"], envelope(row, self._source)) for row in rows)
        return Batch(events, max(0.0, rows[0]["age_s"]) if rows else 0.0)

    async def published(self, events: Sequence[Waiting]) -> None:
        """The streams have these."""
        async with self._statement() as connection:
            await connection.execute(SQL["published"], [event.position for event in events])

    @asynccontextmanager
    async def _statement(self) -> AsyncIterator[Connection]:
        """The connection, for one statement at a time."""
        async with self._turn:
            with unavailable_when_away():
                yield self._connection


@asynccontextmanager
async def open_outbox(dsn: str, source: str) -> AsyncIterator[EventOutbox]:
    """The outbox on a connection of its own. Raises Unavailable.

    Deleting need not reach the disk before the answer: a row that comes back is published again. The server
    gives up a connection, and with it the lead, that says nothing for SILENCE_S: its process was stopped, or
    its host is dead.
    """
    with unavailable_when_away():
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings={
                "application_name": "holdfast-relay",
                "synchronous_commit": "off",
                "lock_timeout": "5000",
                "idle_session_timeout": str(int(SILENCE_S * 1000)),
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
                "tcp_user_timeout": "25000",
                "jit": "off",
                "plan_cache_mode": "force_generic_plan",  # the same few statements, again and again
            },
        )
    try:
        yield EventOutbox(connection, source)
    finally:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=_CLOSE_TIMEOUT_S)
