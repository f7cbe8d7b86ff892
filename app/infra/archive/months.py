"""What an archived month is made of: a file of events, and a manifest that says what is in it.

The file is newline-delimited JSON, one event a line, in order of subject (by code points) and sequence,
compressed with gzip in blocks that can be read one by one; `zcat` reads all of it. The manifest is written
last: without it there is no archived month. A line holds every column that the event's hash covers, as it
is stored.
"""

import hashlib
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from app.domain.chain import LinkedEvent
from app.domain.seals import Seal
from app.infra.archive.store import DamagedArchiveError

FORMAT: Final = 1
BLOCK_EVENTS_MAX: Final = 4096
LEVEL: Final = 6
_GZIP: Final = 31  # zlib's number for the format of gzip files

Place = tuple[str, int]
"""A subject and a sequence."""


class Line(msgspec.Struct, frozen=True):
    """An event as it is archived. Hashes are in hex, times in microseconds, `data` is the stored text."""

    subject: str
    sequence: int
    type: str
    time: str
    correlation_id: str
    traceparent: str | None
    data: str
    previous_hash: str | None
    hash: str


class Block(msgspec.Struct, frozen=True):
    """A part of the file: where it begins, how long it is (bytes), and what is in it."""

    offset: int
    size: int
    events: int
    first: Place
    sha256: str


class SealedDay(msgspec.Struct, frozen=True):
    """A day's seal. Hashes are in hex."""

    day: date
    events: int
    first_event: str | None
    last_event: str | None
    root: str
    previous_seal: str | None
    sealed_at: str
    hash: str


class Manifest(msgspec.Struct, frozen=True):
    """What an archived month holds. `month` is like 2026-08; `size` (bytes) and `sha256` are the file's."""

    format: int
    month: str
    file: str
    events: int
    subjects: int
    size: int
    sha256: str
    first_event: str | None
    last_event: str | None
    first_time: str | None
    last_time: str | None
    types: dict[str, int]
    written_at: str
    days: list[SealedDay]
    blocks: list[Block]

    def block_of(self, subject: str) -> int:
        """The number of the first block in which events of a subject may be."""
        return max(0, bisect_right(self.blocks, (subject, 0), key=_first) - 1)


def _first(block: Block) -> Place:
    return block.first


def month_of(text: str) -> date:
    """The first day of a month like 2026-08. Raises ValueError."""
    year, _, number = text.partition("-")
    if len(year) != 4 or len(number) != 2 or not (year + number).isascii() or not (year + number).isdigit():
        raise ValueError("a month is like 2026-08")
    return date(int(year), int(number), 1)


def shown(month: date) -> str:
    """A month as people write it, of early years too (which `%Y` does not fill with zeros)."""
    return f"{month.year:04}-{month.month:02}"


def after(month: date, months: int = 1) -> date:
    """The first day of the month so many months later."""
    number = month.year * 12 + month.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def moments(month: date) -> tuple[datetime, datetime]:
    """When a month begins, and when the next one does, in UTC."""
    following = after(month)
    return datetime(month.year, month.month, 1, tzinfo=UTC), datetime(
        following.year, following.month, 1, tzinfo=UTC
    )


def events_file(month: date) -> str:
    """The name of a month's events."""
    return f"events-{shown(month)}.ndjson.gz"


def manifest_file(month: date) -> str:
    """The name of a month's manifest."""
    return f"events-{shown(month)}.json"


def sealed_day(seal: Seal) -> SealedDay:
    """A seal as it is archived."""
    return SealedDay(
        seal.day,
        seal.events,
        seal.first_event,
        seal.last_event,
        seal.root.hex(),
        seal.previous_seal.hex() if seal.previous_seal else None,
        written(seal.sealed_at),
        seal.hash.hex(),
    )


def written(time: datetime) -> str:
    """A time, exactly."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Line)


def packed(events: Iterable[LinkedEvent]) -> bytes:
    """A block: events as lines, compressed. The same events give the same bytes."""
    lines = [
        Line(
            event.subject,
            event.sequence,
            event.type,
            written(event.time),
            event.correlation_id,
            event.traceparent,
            event.data,
            event.previous_hash.hex() if event.previous_hash is not None else None,
            event.hash.hex(),
        )
        for event in events
    ]
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    return compressor.compress(_encoder.encode_lines(lines)) + compressor.flush()


def unpacked(block: bytes, said: Block) -> list[LinkedEvent]:
    """The events of a block. Raises DamagedArchiveError where it is not what the manifest says."""
    if len(block) != said.size or hashlib.sha256(block).hexdigest() != said.sha256:
        raise DamagedArchiveError(f"the block at byte {said.offset} is not what was written")
    events = [_event(line) for line in _decoder.decode_lines(zlib.decompress(block, _GZIP))]
    if len(events) != said.events or (events[0].subject, events[0].sequence) != tuple(said.first):
        raise DamagedArchiveError(f"the block at byte {said.offset} holds other events")
    return events


def _event(line: Line) -> LinkedEvent:
    return LinkedEvent(
        line.subject,
        line.sequence,
        line.type,
        datetime.fromisoformat(line.time),
        line.correlation_id,
        line.traceparent,
        line.data,
        bytes.fromhex(line.previous_hash) if line.previous_hash is not None else None,
        bytes.fromhex(line.hash),
    )
