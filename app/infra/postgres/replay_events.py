"""Events of the past, for a replay: `event_batches` is the one way in which they are read.

They come in the order of subject and sequence, a batch at a time, each batch with the cursor behind it: any
process can go on there. It is not an order of time, and needs none: how far a subject counts is a question of
its sequence, which has no gaps, however transactions overlapped when they were committed. What a cursor says
is this module's business. Events of old versions come as those of today. What has left the database is read
in its archive first: there the order is that of months, then of subject and sequence. It writes nothing.
"""

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from functools import cache
from typing import Final

import msgspec

from app.contracts.documents import rfc3339
from app.contracts.streams import Envelope
from app.contracts.versions import brought_up
from app.domain.chain import LinkedEvent
from app.domain.upcasters import VERSIONS, version
from app.infra.archive.replaying import Span, archived_batch, archived_count
from app.infra.postgres.event_outbox import envelope
from app.infra.postgres.pool import Connection
from app.infra.postgres.statements import statements

SQL: Final = statements("replay_events")

STATEMENT_TIMEOUT_S: Final = 60.0
"""Counting, or passing over many events of other times, may take this long."""

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_BEGINNING: Final = ("", 0)


class Wanted(msgspec.Struct, frozen=True):
    """Which events: of these types (as they are called today), from `since`, before `until`.

    Of one `subject`, or of all up to and with `last_subject`, in the database's order of texts.
    """

    types: frozenset[str]
    since: datetime | None = None
    until: datetime | None = None
    subject: str | None = None
    last_subject: str | None = None


class EventBatch(msgspec.Struct, frozen=True):
    """Some events, in order, and where the next batch begins (None: these were the last)."""

    events: tuple[Envelope, ...]
    cursor: str | None


async def count(connection: Connection, wanted: Wanted) -> int:
    """How many events there are; more may come meanwhile."""
    statement, types = SQL["count"], _stored(wanted.types)
    arguments = (*_span(wanted), wanted.subject)
    here = int(await connection.fetchval(statement, types, *arguments, timeout=STATEMENT_TIMEOUT_S))
    return here + await archived_count(connection, Span(*arguments), types)


async def event_batches(
    connection: Connection, wanted: Wanted, cursor: str | None = None, *, size: int, source: str = "replay"
) -> AsyncIterator[EventBatch]:
    """The events behind `cursor` (None: from the first), about `size` events of the log at a time.

    Reads in whatever transaction `connection` is in. Raises UnreadableEvent, and what PostgreSQL says.
    """
    span, types = Span(*_span(wanted), wanted.subject), frozenset(_stored(wanted.types))
    while (archived := await archived_batch(connection, span, cursor, size)) is not None:
        events = [_told(event, source) for event in archived.events if event.type in types]
        yield EventBatch(tuple(events), archived.cursor)
        cursor = archived.cursor
    read = _of_one if wanted.subject is not None else _of_all
    after = _BEGINNING if cursor is None else msgspec.json.decode(cursor, type=tuple[str, int])
    while True:
        batch, last = await read(connection, wanted, after, size, source)
        yield EventBatch(batch, None if last is None else msgspec.json.encode(last).decode())
        if last is None:
            return
        after = last


Page = tuple[tuple[Envelope, ...], tuple[str, int] | None]


async def _of_all(
    connection: Connection, wanted: Wanted, after: tuple[str, int], size: int, source: str
) -> Page:
    span = _span(wanted)
    arguments = (*after, *span, size, wanted.last_subject)
    end = await connection.fetchrow(SQL["window_end"], *arguments, timeout=STATEMENT_TIMEOUT_S)
    if end is None:
        return (), None
    last = end["subject"], end["sequence"]
    rows = await connection.fetch(SQL["window"], *after, *span, *last, _stored(wanted.types))
    # Fewer than asked for: that was the end, although more may have come meanwhile, and always will.
    return tuple([brought_up(envelope(row, source)) for row in rows]), last if end["found"] == size else None


async def _of_one(
    connection: Connection, wanted: Wanted, after: tuple[str, int], size: int, source: str
) -> Page:
    rows = await connection.fetch(
        SQL["of_one"], wanted.subject, after[1], *_span(wanted), _stored(wanted.types), size
    )
    events = tuple([brought_up(envelope(row, source)) for row in rows])
    return events, (events[-1].subject, events[-1].sequence) if len(events) == size else None


def _told(event: LinkedEvent, source: str) -> Envelope:
    """An archived event as it was published, brought up."""
    return brought_up(
        Envelope(
            id=f"{event.subject}:{event.sequence}",
            type=event.type,
            source=source,
            subject=event.subject,
            time=rfc3339(event.time),
            sequence=event.sequence,
            correlationid=event.correlation_id,
            data=msgspec.Raw(event.data.encode()),
            traceparent=event.traceparent,
        )
    )


def _span(wanted: Wanted) -> tuple[datetime, datetime]:
    return wanted.since or _FIRST, wanted.until or _LAST


@cache
def _stored(types: Collection[str]) -> list[str]:
    """The types under which these are stored: those of today, and the old versions of the same names."""
    names = {version(type_).name for type_ in types}
    return sorted({*types, *(old for old in VERSIONS.old if version(old).name in names)})
