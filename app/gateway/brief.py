"""`Brief`: what was just read from PostgreSQL, kept for half a second while there is no Redis to keep it.

Without it every read of an order that many look at would go to PostgreSQL at the worst moment. It belongs to
one process and holds nothing that cannot be read again.
"""

from collections import OrderedDict
from time import monotonic
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LIFETIME_S: Final = 0.5
ENTRIES_MAX: Final = 4_096


class Brief(Generic[T]):
    """A bounded map whose entries end by themselves, the oldest first."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: OrderedDict[str, tuple[T, float]] = OrderedDict()

    def get(self, name: str) -> T | None:
        """What is kept under this name, if it is still good."""
        found = self._kept.get(name)
        return found[0] if found is not None and found[1] > monotonic() else None

    def keep(self, name: str, value: T, *, as_of: float) -> None:
        """Keep what was true at `as_of` (monotonic, in seconds)."""
        self._kept.pop(name, None)
        self._kept[name] = (value, as_of + LIFETIME_S)
        if len(self._kept) > ENTRIES_MAX:
            self._kept.popitem(last=False)

    def forget(self, name: str) -> None:
        """Keep nothing under this name."""
        self._kept.pop(name, None)
