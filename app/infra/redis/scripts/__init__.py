"""Lua scripts, one a file. They run by their hash; a server that has lost them is given them again."""

from functools import cache
from importlib.resources import files


@cache
def source(name: str) -> bytes:
    """The text of `<name>.lua`."""
    return (files(__name__) / f"{name}.lua").read_bytes()
