"""`Near`: values kept in this process, which the server itself says are no longer right.

All reads that are to be kept go over one connection with CLIENT TRACKING: the server remembers which keys it
was asked for, and says on the same connection, in order with the answers, when one of them has changed. What
it says may still overtake a reader that has its answer and has not yet run: so every read is announced before
it is sent (`reading`), and its value is kept only if nothing was said about the key since.

An invalidation can be late or lost with its connection, so each value also has a lifetime of its own, counted
from when it was asked for: that bound holds whatever the network does. Everything is dropped when the
connection is lost or commands are refused. If the process dies here, nothing is lost.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Generic, Self, TypeVar

from app.hotpath.address import Address
from app.hotpath.client import DEADLINE_S, Client
from app.hotpath.dialing import Examine

V = TypeVar("V")

ENTRIES_MAX: Final = 50_000
BYTES_MAX: Final = 64 * 1024 * 1024
ENTRY_BYTES: Final = 400
"""What an entry costs beside its value, about."""
HEARTBEAT_S: Final = 1.0
"""A connection that said nothing for this long is asked whether it lives."""
SPARED_MAX: Final = 16
"""So many entries in a row are spared because they were used; then one goes all the same."""


class NearStatistics:
    """Counters of one near cache since it was made; all only grow. `hits` and `misses` are calls of `get`.

    `evictions` made room, `invalidations` were said by the server, `overtaken` were reads whose value had
    changed before it could be kept, `clears` dropped everything.
    """

    __slots__ = ("clears", "evictions", "hits", "invalidations", "misses", "overtaken")

    def __init__(self) -> None:
        """Start at zero."""
        self.hits = self.misses = 0
        self.evictions = self.invalidations = self.overtaken = self.clears = 0


class _Entry(Generic[V]):
    __slots__ = ("is_used", "size", "until", "value")

    def __init__(self, value: V, until: float, size: int) -> None:
        self.value = value
        self.until = until
        self.size = size
        self.is_used = False


class Reading(Generic[V]):
    """Reads of one name that are under way, from before they are sent until their value may be kept."""

    __slots__ = ("_near", "asked_at", "name", "readers")

    def __init__(self, near: "Near[V]", name: str) -> None:
        """Made by `Near.reading`."""
        self._near = near
        self.name = name
        self.asked_at = monotonic()
        self.readers = 0

    def keep(self, value: V, *, size: int, lifetime_s: float) -> bool:
        """Keep a value of `size` bytes until `lifetime_s` after it was asked for; whether it is kept."""
        return self._near._keep(self, value, size, self.asked_at + lifetime_s)  # noqa: SLF001 - one class in two

    def __enter__(self) -> Self:
        self.readers += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.readers -= 1
        if not self.readers:
            self._near._over(self)  # noqa: SLF001 - one class in two


class Near(Generic[V]):
    """Values by name; the key of a name in Redis is `before` + name + `after`.

    Read by `client`, inside `with near.reading(name) as reading`; `reading.keep` what is made of the answer.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        before: str,
        after: str = "",
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
        deadline_s: float = DEADLINE_S,
        examine: Examine | None = None,
    ) -> None:
        """Prepare; `open` connects, as `name` in the server's CLIENT LIST. `examine` is the client's."""
        self.statistics = NearStatistics()
        self.client = Client(
            address,
            name=name,
            deadline_s=deadline_s,
            heartbeat_s=HEARTBEAT_S,
            examine=examine,
            greeting=lambda: (("CLIENT", "TRACKING", "ON"),),
            on_push=self._pushed,
        )
        self.client.when_lost.append(self.clear)
        self.client.when_down.append(lambda _: self.clear())
        self.bytes = 0
        self._before, self._after = before.encode(), after.encode()
        self._deadline_s = deadline_s
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entries: OrderedDict[str, _Entry[V]] = OrderedDict()
        self._readings: dict[str, Reading[V]] = {}
        self._find: Callable[[str], _Entry[V] | None] = self._entries.get

    def __len__(self) -> int:
        """How many values are kept."""
        return len(self._entries)

    def get(self, name: str) -> V | None:
        """The value that is kept for a name, if there is one. Takes no round trip and waits for nothing."""
        entry = self._find(name)
        if entry is None or entry.until <= monotonic():
            self.statistics.misses += 1
            return None
        entry.is_used = True
        self.statistics.hits += 1
        return entry.value

    def reading(self, name: str) -> Reading[V]:
        """Announce a read of a name, before it is sent."""
        reading = self._readings.get(name)
        # Readers who overlap for ever would share one that is ever older: its values would live ever shorter.
        if reading is None or reading.asked_at + self._deadline_s < monotonic():
            reading = self._readings[name] = Reading(self, name)
        return reading

    def forget(self, name: str) -> None:
        """Drop what is kept for a name, and what is being read just now."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self.bytes -= entry.size
        self._readings.pop(name, None)

    def clear(self) -> None:
        """Drop everything, and what is being read just now."""
        self.statistics.clears += 1
        self._entries.clear()
        self._readings.clear()
        self.bytes = 0

    def open(self) -> Self:
        """Connect, in the background."""
        self.client.open()
        return self

    async def close(self) -> None:
        """End the connection."""
        await self.client.close()

    def _keep(self, reading: Reading[V], value: V, size: int, until: float) -> bool:
        name = reading.name
        if self._readings.get(name) is not reading:
            self.statistics.overtaken += 1
            return False
        size += ENTRY_BYTES
        if size > self._bytes_max or until <= monotonic():
            return False
        entry = self._entries.pop(name, None)
        if entry is not None:
            self.bytes -= entry.size
        self._entries[name] = _Entry(value, until, size)
        self.bytes += size
        while self.bytes > self._bytes_max or len(self._entries) > self._entries_max:
            self._evict()
        return True

    def _over(self, reading: Reading[V]) -> None:
        if self._readings.get(reading.name) is reading:
            del self._readings[reading.name]

    def _evict(self) -> None:
        """Drop the oldest entry that was not used since it came, or was last spared (CLOCK)."""
        name, entry = self._entries.popitem(last=False)
        for _ in range(SPARED_MAX):
            if not entry.is_used:
                break
            entry.is_used = False
            self._entries[name] = entry
            name, entry = self._entries.popitem(last=False)
        self.bytes -= entry.size
        self.statistics.evictions += 1

    def _pushed(self, push: list[Any]) -> None:
        """Hear what the server says: these keys have changed, or (None) all of them may have."""
        if push[0] != b"invalidate":
            return
        if push[1] is None:
            self.clear()
            return
        for key in push[1]:
            if key.startswith(self._before) and key.endswith(self._after):
                self.statistics.invalidations += 1
                name = key[len(self._before) : len(key) - len(self._after)]
                self.forget(name.decode("utf-8", "replace"))
