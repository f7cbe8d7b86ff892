"""Owns what an import remembers between two runs of the command: its name, and the stock before it began.

The name is in every idempotency key, so an import that was cut short goes on under the same keys and places
nothing twice; one that was finished is forgotten, and the next one places the purchases again. The file is
replaced whole: if the process dies, it says the old or the new.
"""

import hashlib
import secrets
from pathlib import Path
from typing import Final

import msgspec

from app.dev.importing.purchases import Purchase

_FOLDER: Final = "imports"


class Pieces(msgspec.Struct, frozen=True):
    """Pieces of one SKU over all warehouses."""

    on_hand: int
    reserved: int


class Run(msgspec.Struct, frozen=True):
    """One import that was begun. It has put its stock in place, so its orders may have been placed."""

    name: str
    before: dict[str, Pieces]


class Journal:
    """Remembers the import of these purchases at this gateway, in a data folder."""

    def __init__(self, data_folder: Path, url: str, purchases: list[Purchase]) -> None:
        """Nothing is read or written yet."""
        said = "\n".join(map(repr, [url, *purchases]))
        self._file = data_folder / _FOLDER / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"

    @staticmethod
    def new_name() -> str:
        """A name that no import had."""
        return secrets.token_hex(6)

    def load(self) -> Run | None:
        """The import that was cut short, if one was."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Run)
        except (OSError, msgspec.DecodeError):
            return None

    def save(self, run: Run) -> None:
        """Remember a run. Raises OSError."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._file.with_suffix(".new")
        unfinished.write_bytes(msgspec.json.encode(run))
        unfinished.replace(self._file)

    def forget(self) -> None:
        """The run is finished."""
        self._file.unlink(missing_ok=True)
