"""Writing a month into the archive: the file, then reading it back, then the manifest.

Only what is sealed is archived, and only as it was sealed: each day's events are held against its seal
while they are written, and again when they are read back. It holds one block. If the process dies here,
there is no manifest, so there is no archived month, and the next attempt writes the same file again.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime

import msgspec

from app.domain.chain import LinkedEvent, link
from app.domain.seals import DayOfEvents, Seal
from app.infra.archive.months import (
    BLOCK_EVENTS_MAX,
    FORMAT,
    Block,
    Manifest,
    events_file,
    manifest_file,
    packed,
    sealed_day,
    shown,
    written,
)
from app.infra.archive.reading import ArchivedMonth, open_month
from app.infra.archive.store import ArchiveError, ArchiveStore, DamagedArchiveError

Progress = Callable[[str, int], None]
"""Is told what is being done, and how many events it has been done to."""


class UnlikeItsSealError(ArchiveError):
    """The events of a day are not those that were sealed: they are not archived as if they were."""


class Days:
    """The days of a month, filled with events in the order of the archive, to be held against their seals."""

    def __init__(self, seals: Sequence[Seal]) -> None:
        """Expect what these seals say."""
        self._seals = seals
        self._days = {seal.day: DayOfEvents() for seal in seals}

    def add(self, event: LinkedEvent) -> None:
        """The next event. Raises UnlikeItsSealError where its day has no seal."""
        day = event.time.astimezone(UTC).date()
        content = self._days.get(day)
        if content is None:
            raise UnlikeItsSealError(f"{event.subject}:{event.sequence} is of {day}, which has no seal")
        content.add(event.subject, event.sequence, event.hash)

    def unlike(self) -> list[date]:
        """The days that are not what was sealed."""
        return [
            seal.day
            for seal in self._seals
            if (content := self._days[seal.day]).root != seal.root
            or (content.events, content.first_event, content.last_event)
            != (seal.events, seal.first_event, seal.last_event)
        ]

    def check(self) -> None:
        """Raises UnlikeItsSealError where a day is not what was sealed."""
        if unlike := self.unlike():
            days = ", ".join(str(day) for day in unlike)
            raise UnlikeItsSealError(
                f"not what was sealed: {days}; `holdfast audit verify` says what is wrong"
            )


class _Writing:
    """A month's file on its way into the archive: what has gone into it so far."""

    def __init__(self, days: Days, progress: Progress) -> None:
        self._days = days
        self._progress = progress
        self.blocks: list[Block] = []
        self.types: dict[str, int] = {}
        self.subjects = 0
        self.events = 0
        self.size = 0
        self.whole = hashlib.sha256()
        self.first: LinkedEvent | None = None
        self.last: LinkedEvent | None = None
        self.first_time: datetime | None = None
        self.last_time: datetime | None = None

    async def file(self, events: AsyncIterator[LinkedEvent]) -> AsyncIterator[bytes]:
        """The blocks; at the end, the days are held against their seals."""
        block: list[LinkedEvent] = []
        async for event in events:
            self._count(event)
            block.append(event)
            if len(block) == BLOCK_EVENTS_MAX:
                yield self._pack(block)
                block = []
        if block or not self.blocks:
            yield self._pack(block)
        self._days.check()

    def _count(self, event: LinkedEvent) -> None:
        self._days.add(event)
        self.types[event.type] = self.types.get(event.type, 0) + 1
        if self.last is None or self.last.subject != event.subject:
            self.subjects += 1
        self.first = self.first or event
        self.last = event
        self.first_time = min(self.first_time or event.time, event.time)
        self.last_time = max(self.last_time or event.time, event.time)

    def _pack(self, events: list[LinkedEvent]) -> bytes:
        block = packed(events)
        if events:
            first = (events[0].subject, events[0].sequence)
            said = Block(self.size, len(block), len(events), first, hashlib.sha256(block).hexdigest())
            self.blocks.append(said)
        self.whole.update(block)
        self.size += len(block)
        self.events += len(events)
        self._progress("writing", self.events)
        return block

    def manifest(self, month: date, seals: Sequence[Seal]) -> Manifest:
        """What the file holds."""
        return Manifest(
            format=FORMAT,
            month=shown(month),
            file=events_file(month),
            events=self.events,
            subjects=self.subjects,
            size=self.size,
            sha256=self.whole.hexdigest(),
            first_event=_id(self.first),
            last_event=_id(self.last),
            first_time=written(self.first_time) if self.first_time else None,
            last_time=written(self.last_time) if self.last_time else None,
            types=dict(sorted(self.types.items())),
            written_at=written(datetime.now(UTC)),
            days=[sealed_day(seal) for seal in seals],
            blocks=self.blocks,
        )


async def write_month(
    store: ArchiveStore,
    month: date,
    seals: Sequence[Seal],
    events: AsyncIterator[LinkedEvent],
    progress: Progress,
) -> ArchivedMonth:
    """Archive a month whose days have `seals`; `events` come in order of subject (code points) and sequence.

    Raises ArchiveError, and what `events` raises.
    """
    writing = _Writing(Days(seals), progress)
    await store.write(events_file(month), writing.file(events))
    manifest = writing.manifest(month, seals)
    text = msgspec.json.encode(manifest)
    archived = ArchivedMonth(store, month, manifest, hashlib.sha256(text).digest())
    await verify_month(archived, seals, progress)
    await store.write_small(manifest_file(month), text)
    return await open_month(store, month, archived.manifest_hash)


async def verify_month(archived: ArchivedMonth, seals: Sequence[Seal], progress: Progress) -> None:
    """Read a month back: each event is what its hash says, each day what was sealed. Raises ArchiveError."""
    days = Days(seals)
    if archived.manifest.days != [sealed_day(seal) for seal in seals]:
        raise DamagedArchiveError(f"{shown(archived.month)} in {archived.store.url} has other seals")
    done = 0
    async for block in archived.blocks():
        for event in block:
            made_of = (event.type, event.time, event.correlation_id, event.traceparent, event.data)
            if link(event.previous_hash, event.subject, event.sequence, *made_of) != event.hash:
                place = f"{event.subject}:{event.sequence}"
                raise DamagedArchiveError(f"{place} in {archived.store.url} is not what its hash says")
            days.add(event)
        done += len(block)
        progress("reading back", done)
    days.check()


def _id(event: LinkedEvent | None) -> str | None:
    return None if event is None else f"{event.subject}:{event.sequence}"
