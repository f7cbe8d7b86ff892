"""`EventOutbox`: the events that no stream has yet, for the relays.

A row is written in the transaction of its event and deleted when the stream has answered, so nothing is
skipped however transactions overlap. Rows have no shard: it is computed from the subject when they are looked
for, so the number of shards may change while they wait. If the process dies here, what was published but not
deleted is published again.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Final

import asyncpg
import msgspec

from app.contracts.documents import rfc3339
from app.contracts.streams import Envelope
from app.infra.postgres.pool import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    Connection,
    Examine,
    login,
    unavailable_when_away,
)
from app.infra.postgres.statements import statements

SQL: Final = statements("event_outbox")
LATELY: Final = timedelta(days=1)
"""What waits has happened within this of now, as a rule: there it is looked for first."""

_CLOSE_TIMEOUT_S: Final = 2.0


class Waiting(msgspec.Struct, frozen=True):
    """One event that waits in the outbox."""

    position: int
    envelope: Envelope


class Batch(msgspec.Struct, frozen=True):
    """The oldest events that wait, in order."""

    events: tuple[Waiting, ...]


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

    async def waiting(
        self, batch_size_max: int, *, shards: Collection[int] | None = None, of: int = 1
    ) -> Batch:
        """The oldest events that wait; only those of some shards out of so many, if that is said."""
        now = datetime.now(UTC)
        wanted = None if shards is None else list(shards)
        with unavailable_when_away():
            rows = await self._connection.fetch(
                SQL["waiting"], batch_size_max, now - LATELY, now + LATELY, of, wanted
            )
            if long := [row["position"] for row in rows if row["type"] is None]:
                rows = [row for row in rows if row["type"] is not None]
                rows += await self._connection.fetch(SQL["waiting_long"], long)
                rows.sort(key=itemgetter("position"))
        return Batch(tuple(Waiting(row["position"], envelope(row, self._source)) for row in rows))

    async def published(self, events: Sequence[Waiting]) -> None:
        """The streams have these."""
        with unavailable_when_away():
            await self._connection.execute(SQL["published"], [event.position for event in events])


@asynccontextmanager
async def open_outbox(dsn: str, source: str, examine: Examine | None = None) -> AsyncIterator[EventOutbox]:
    """The outbox on a connection of its own, which `examine` is asked of first. Raises Unavailable.

    Deleting need not reach the disk before the answer: a row that comes back is published again.
    """
    with unavailable_when_away(), login():
        connection = await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings={
                "application_name": "holdfast-relay",
                "synchronous_commit": "off",
                "lock_timeout": "5000",
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
                "tcp_user_timeout": "25000",
                "jit": "off",
                "plan_cache_mode": "force_generic_plan",  # the same few statements, again and again
            },
        )
    try:
        if examine is not None:
            with unavailable_when_away():
                await examine(connection)
        yield EventOutbox(connection, source)
    finally:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=_CLOSE_TIMEOUT_S)
