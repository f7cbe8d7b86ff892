"""Events of months that are only in an archive, for a replay: the oldest month first, then what is here.

Each subject's events come in their order, and any process can go on at any place. What a place says is this
module's business. Opened months and the last block are kept while the process lives: neither ever changes.
"""

from collections.abc import AsyncIterator, Iterable
from datetime import date, datetime
from typing import Final

import msgspec

from app.domain.chain import LinkedEvent
from app.domain.errors import Unavailable
from app.infra.archive.months import moments, month_of, shown
from app.infra.archive.reading import ArchivedMonth, open_month
from app.infra.archive.store import ArchiveStore, UnreachableArchiveError
from app.infra.postgres.archives import ArchivedRow, dropped_months
from app.infra.postgres.pool import Connection

HERE: Final = '["",0]'
"""The place behind everything archived: where the events in the database begin."""
MONTHS_OPEN_MAX: Final = 4

_ARCHIVE: Final = "archive"
_place: Final = msgspec.json.Decoder(tuple[str, str, int, int])

Place = tuple[date, int, int]
"""A month, the number of a block in it, and of an event in that."""

_opened: dict[tuple[str, bytes], ArchivedMonth] = {}
_blocks: dict[tuple[bytes, int], list[LinkedEvent]] = {}


class Span(msgspec.Struct, frozen=True):
    """From a moment up to another, without it; of one subject or of all."""

    since: datetime
    until: datetime
    subject: str | None = None

    def holds(self, event: LinkedEvent) -> bool:
        """Whether an event is one of these."""
        return self.since <= event.time < self.until and self.subject in {None, event.subject}


class ArchivedBatch(msgspec.Struct, frozen=True):
    """Some events, in order, and the place behind them."""

    events: tuple[LinkedEvent, ...]
    cursor: str


async def archived_batch(
    connection: Connection, span: Span, cursor: str | None, size: int
) -> ArchivedBatch | None:
    """The events behind `cursor` (None: from the first), of at most `size` in the archive.

    None: there is nothing, or nothing more; the events in the database follow. Raises Unavailable where the
    archive does not answer, and ArchiveError.
    """
    if cursor is not None and not cursor.startswith(f'["{_ARCHIVE}"'):
        return None
    rows = await _rows(connection, span)
    try:
        place = _begin(rows) if cursor is None else _read(cursor)
        if place is None:
            return None
        return await _batch(rows, span, place, size)
    except UnreachableArchiveError as error:
        raise Unavailable("archive", str(error)) from error


async def archived_events(connection: Connection, span: Span) -> AsyncIterator[LinkedEvent]:
    """All of them, a block at a time. Raises Unavailable and ArchiveError."""
    cursor = None
    while (batch := await archived_batch(connection, span, cursor, size=2**30)) is not None:
        for event in batch.events:
            yield event
        cursor = batch.cursor


async def archived_count(connection: Connection, span: Span, types: Iterable[str]) -> int:
    """How many of some types there are. Reads a month only where not all of it is asked for."""
    wanted = frozenset(types)
    found = 0
    try:
        for row in await _rows(connection, span):
            begin, end = moments(row.month)
            if span.subject is None and span.since <= begin and end <= span.until:
                month = await _open(row)
                found += sum(month.manifest.types.get(kind, 0) for kind in wanted)
                continue
            inside = Span(max(begin, span.since), min(end, span.until), span.subject)
            async for event in archived_events(connection, inside):
                found += event.type in wanted
    except UnreachableArchiveError as error:
        raise Unavailable("archive", str(error)) from error
    return found


async def _batch(rows: list[ArchivedRow], span: Span, place: Place, size: int) -> ArchivedBatch:
    at, number, offset = place
    row = next(row for row in rows if row.month == at)
    month = await _open(row)
    manifest = month.manifest
    if span.subject is not None:
        number = max(number, manifest.block_of(span.subject))
    blocks = len(manifest.blocks)
    if span.subject is not None and number < blocks and manifest.blocks[number].first[0] > span.subject:
        number = blocks  # the rest is of others
    events: list[LinkedEvent] = []
    if number < blocks:
        block = await _block(month, number)
        events = block[offset : offset + size]
        offset += len(events)
        if offset >= len(block):
            number, offset = number + 1, 0
    if number < blocks:
        following = _written(at, number, offset)
    else:
        later = [other for other in rows if other.month > at]
        following = _written(later[0].month, 0, 0) if later else HERE
    return ArchivedBatch(tuple(event for event in events if span.holds(event)), following)


async def _rows(connection: Connection, span: Span) -> list[ArchivedRow]:
    """The months in archives only that a span touches."""
    return [
        row
        for row in await dropped_months(connection)
        if moments(row.month)[0] < span.until and moments(row.month)[1] > span.since
    ]


def _begin(rows: list[ArchivedRow]) -> Place | None:
    return (rows[0].month, 0, 0) if rows else None


def _read(cursor: str) -> Place:
    _, month, number, offset = _place.decode(cursor)
    return month_of(month), number, offset


def _written(month: date, number: int, offset: int) -> str:
    return msgspec.json.encode((_ARCHIVE, shown(month), number, offset)).decode()


async def _open(row: ArchivedRow) -> ArchivedMonth:
    key = (row.url, row.manifest_hash)
    if key not in _opened:
        while len(_opened) >= MONTHS_OPEN_MAX:
            del _opened[next(iter(_opened))]
        _opened[key] = await open_month(ArchiveStore(row.url), row.month, row.manifest_hash)
    return _opened[key]


async def _block(month: ArchivedMonth, number: int) -> list[LinkedEvent]:
    key = (month.manifest_hash, number)
    if key not in _blocks:
        block = await month.block(number)
        _blocks.clear()
        _blocks[key] = block
    return _blocks[key]
