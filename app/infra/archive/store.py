"""`ArchiveStore`: where archived months lie: a folder, or a bucket that speaks S3.

A file is there wholly or not at all. Nothing is ever changed in place. If the process dies here, a folder may
keep a part of a file under another name and a bucket the parts of an upload that was not ended; nobody reads
either.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

PART_BYTES: Final = 8 * 2**20
PARTS_AT_ONCE: Final = 2
READ_BYTES: Final = 2**20

_SCHEMES: Final = frozenset({"file", "s3", "s3a"})
_PATIENCE: Final = timedelta(seconds=30)


class ArchiveError(Exception):
    """The archive cannot be used; the text says why, for people."""


class UnreachableArchiveError(ArchiveError):
    """Nobody answers there, or says that it is forbidden."""


class NotArchivedError(ArchiveError):
    """What is looked for is not in the archive."""


class DamagedArchiveError(ArchiveError):
    """What is in the archive is not what was put there."""


class ArchiveStore:
    """The files below one address. Every method raises UnreachableArchiveError."""

    def __init__(self, url: str, *, make: bool = False) -> None:
        """Use `file:///folder`, a path, or `s3://bucket/prefix`; `make` the folder. Raises ValueError.

        A bucket's credentials, region and endpoint come from the usual variables (`AWS_ACCESS_KEY_ID`, …).
        """
        self.url = address(url)
        try:
            self._store = _opened(self.url, make=make)
        except (BaseError, OSError) as error:
            raise self._unreachable(error) from error

    async def write(self, name: str, content: AsyncIterator[bytes]) -> None:
        """Make a file, or replace it, at once with its last byte. Raises what `content` raises."""
        try:
            await obstore.put_async(
                self._store, name, content, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
        except (BaseError, OSError) as error:
            raise self._unreachable(error) from error

    async def write_small(self, name: str, content: bytes) -> None:
        """The same of a file that is in memory already."""
        try:
            await obstore.put_async(self._store, name, content)
        except (BaseError, OSError) as error:
            raise self._unreachable(error) from error

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """A file, in pieces of about a megabyte. Raises NotArchivedError."""
        try:
            found = await obstore.get_async(self._store, name)
            async for piece in found.stream(min_chunk_size=READ_BYTES):
                yield bytes(piece)
        except FileNotFoundError:
            raise self._missing(name) from None
        except (BaseError, OSError) as error:
            raise self._unreachable(error) from error

    async def read_small(self, name: str) -> bytes:
        """A whole file. Raises NotArchivedError."""
        return b"".join([piece async for piece in self.read(name)])

    async def read_range(self, name: str, start: int, length: int) -> bytes:
        """A part of a file. Raises NotArchivedError."""
        try:
            return bytes(await obstore.get_range_async(self._store, name, start=start, length=length))
        except FileNotFoundError:
            raise self._missing(name) from None
        except (BaseError, OSError) as error:
            raise self._unreachable(error) from error

    def _missing(self, name: str) -> NotArchivedError:
        return NotArchivedError(f"there is no {name} in the archive {self.url}")

    def _unreachable(self, error: Exception) -> UnreachableArchiveError:
        said = str(error).splitlines()
        return UnreachableArchiveError(
            f"the archive {self.url} cannot be reached: {said[0] if said else type(error).__name__}"
        )


def _opened(url: str, *, make: bool) -> ObjectStore:
    if url.startswith("file:"):
        folder = Path(unquote(urlsplit(url).path))
        if not make and not folder.is_dir():  # a disk that is not mounted, say
            raise FileNotFoundError(f"there is no folder {folder}")
        return LocalStore(folder, mkdir=make)
    return from_url(
        url,
        client_options={"allow_http": True, "timeout": "60s", "connect_timeout": "5s"},
        retry_config={"max_retries": 5, "retry_timeout": _PATIENCE},
    )


def address(text: str) -> str:
    """A URL that says the same in one form; of a path, the file's. Raises ValueError.

    Credentials in it would be kept with it: they are refused.
    """
    parts = urlsplit(text)
    if "://" not in text:
        return Path(text).expanduser().absolute().as_uri()
    if parts.scheme not in _SCHEMES:
        raise ValueError("an archive is a folder (file:///… or a path) or s3://bucket/prefix")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("credentials and options of a bucket come from the environment, not in its address")
    if parts.scheme == "file" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError("a folder's address is file:///path")
    if parts.scheme != "file" and not parts.netloc:
        raise ValueError("a bucket's address is s3://bucket/prefix")
    return text.rstrip("/")
