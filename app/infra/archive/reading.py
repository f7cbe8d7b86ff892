"""`ArchivedMonth`: a month of events as it lies in the archive, read as a whole or from anywhere.

Whatever is read is held against the manifest first, block by block; the manifest against the hash that
PostgreSQL has of it. It writes nothing.
"""

import hashlib
from collections.abc import AsyncIterator
from datetime import date

import msgspec

from app.domain.chain import LinkedEvent
from app.infra.archive.months import FORMAT, Manifest, events_file, manifest_file, shown, unpacked
from app.infra.archive.store import ArchiveStore, DamagedArchiveError

_decoder = msgspec.json.Decoder(Manifest)


class ArchivedMonth:
    """One month in an archive. Every method raises ArchiveError."""

    def __init__(self, store: ArchiveStore, month: date, manifest: Manifest, manifest_hash: bytes) -> None:
        """Be what `manifest`, whose SHA-256 is `manifest_hash`, says."""
        self.store = store
        self.month = month
        self.manifest = manifest
        self.manifest_hash = manifest_hash

    async def blocks(self, first: int = 0) -> AsyncIterator[list[LinkedEvent]]:
        """The events in order, a block at a time, from the block number `first` on.

        Holds one block. From the first one on, the whole file is held against its hash at the end.
        """
        if first:
            for number in range(first, len(self.manifest.blocks)):
                yield await self.block(number)
            return
        whole = hashlib.sha256()
        held = bytearray()
        blocks = iter(self.manifest.blocks)
        block = next(blocks, None)
        async for piece in self.store.read(self.manifest.file):
            whole.update(piece)
            held += piece
            while block is not None and len(held) >= block.size:
                taken = bytes(held[: block.size])
                del held[: block.size]
                yield unpacked(taken, block)
                block = next(blocks, None)
        if block is not None or whole.hexdigest() != self.manifest.sha256:
            raise self._damaged()

    async def check(self) -> None:
        """Hold the whole file against its hash, without looking into it."""
        whole = hashlib.sha256()
        async for piece in self.store.read(self.manifest.file):
            whole.update(piece)
        if whole.hexdigest() != self.manifest.sha256:
            raise self._damaged()

    async def block(self, number: int) -> list[LinkedEvent]:
        """The events of one block."""
        block = self.manifest.blocks[number]
        taken = await self.store.read_range(self.manifest.file, block.offset, block.size)
        return unpacked(taken, block)

    def _damaged(self) -> DamagedArchiveError:
        return DamagedArchiveError(f"{self.manifest.file} in {self.store.url} is not what was written")


async def open_month(store: ArchiveStore, month: date, expected: bytes | None = None) -> ArchivedMonth:
    """Read a month's manifest; `expected` is its SHA-256 where that is known.

    Raises NotArchivedError, UnreachableArchiveError and DamagedArchiveError.
    """
    name = manifest_file(month)
    text = await store.read_small(name)
    found = hashlib.sha256(text).digest()
    if expected is not None and found != expected:
        raise DamagedArchiveError(f"{name} in {store.url} is not the one that was verified")
    try:
        manifest = _decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise DamagedArchiveError(f"{name} in {store.url} cannot be read: {error}") from None
    if manifest.format != FORMAT:
        raise DamagedArchiveError(f"{name} in {store.url} is of format {manifest.format}: a newer release's")
    if (manifest.month, manifest.file) != (shown(month), events_file(month)):
        raise DamagedArchiveError(f"{name} in {store.url} is of another month")
    return ArchivedMonth(store, month, manifest, found)
