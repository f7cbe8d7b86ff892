"""`Script`: a Lua script, kept as a file in `lua/`, run by its hash."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """A script's source and the SHA-1 by which the server knows it."""

    source: bytes
    sha: str

    @classmethod
    def of(cls, source: bytes) -> "Script":
        """A script from its text."""
        return cls(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())

    @classmethod
    @cache
    def load(cls, name: str) -> "Script":
        """The script of `lua/<name>.lua`."""
        return cls.of((files("app.hotpath") / "lua" / f"{name}.lua").read_bytes())
