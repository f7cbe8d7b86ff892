"""`PostgresSeals`: seals the days that are over, one after the other, each in one transaction.

The clock is PostgreSQL's: a consumer whose own clock runs ahead seals nothing too early. If the process dies
here, nothing was sealed, and whoever leads next does it. Of two that seal at once, one fails.
"""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import asyncpg

from app.domain.seals import DayOfEvents, Seal, seal
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("seals")
SETTLE: Final = timedelta(hours=6)
"""How long after its end a day is sealed. Events that commit later than that are breaks for ever."""
LEAF_EVENTS_MAX: Final = 4096
SHORT_BYTES: Final = 8
"""How much of an event's hash a leaf keeps."""

_PREFETCH: Final = 1000
_SORT_TIMEOUT_S: Final = 900.0
"""The first rows come when PostgreSQL has sorted the day."""


class PostgresSeals:
    """The seals, for whoever makes them."""

    def __init__(self, database: Database) -> None:
        """Work on a pool."""
        self._database = database

    async def seal_next(self, settle: timedelta = SETTLE) -> Seal | None:
        """Seal the oldest day that is over for so long and has no seal. None when there is no such day.

        The first day of all is that of the first event; from there on each day has a seal, an empty one too.
        Raises Unavailable, also when somebody else sealed it at the same time.
        """
        async with self._database.connection() as connection:
            try:
                async with connection.transaction(isolation="repeatable_read"):
                    return await _seal_next(connection, settle)
            except asyncpg.UniqueViolationError:
                return None  # another leader was faster; it goes on, too


async def _seal_next(connection: Connection, settle: timedelta) -> Seal | None:
    due = await connection.fetchrow(SQL["due"], settle.total_seconds(), timeout=_SORT_TIMEOUT_S)
    if due is None:
        return None
    content = DayOfEvents()
    leaves: list[tuple[str, int, bytearray]] = []
    async for subject, sequence, hash_ in events_of_day(connection, due["day"]):
        if content.events % LEAF_EVENTS_MAX == 0:
            leaves.append((subject, sequence, bytearray()))
        leaves[-1][2].extend(hash_[:SHORT_BYTES])
        content.add(subject, sequence, hash_)
    made = seal(due["day"], content, due["previous_seal"], due["at"])
    await connection.execute(
        SQL["add"],
        made.day,
        made.events,
        made.first_event,
        made.last_event,
        made.root,
        made.previous_seal,
        made.sealed_at,
        made.hash,
    )
    if leaves:
        rows = [(made.day, number, *leaf[:2], bytes(leaf[2])) for number, leaf in enumerate(leaves)]
        await connection.executemany(SQL["add_leaf"], rows)
    return made


async def events_of_day(connection: Connection, day: date) -> AsyncIterator[tuple[str, int, bytes]]:
    """Subject, sequence and hash of each event of a day, in the order in which they are sealed.

    Needs a transaction; holds a thousand of them at a time.
    """
    begin, end = moments_of(day)
    rows = connection.cursor(SQL["events_of_day"], begin, end, prefetch=_PREFETCH, timeout=_SORT_TIMEOUT_S)
    async for row in rows:
        yield row["subject"], row["sequence"], row["hash"]


def moments_of(day: date) -> tuple[datetime, datetime]:
    """When a day in UTC begins, and when the next one does."""
    begin = datetime.combine(day, time(), UTC)
    return begin, begin + timedelta(days=1)
