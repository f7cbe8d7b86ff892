"""`Flights`: one load of a key at a time, for everybody who wants it at that moment.

Whoever comes later than `join_s` after a load began starts another: its answer is never older than that for
anybody. A caller that gives up does not disturb the load, whose answer others wait for. If the process dies
here, nothing was promised to anybody.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from app.hotpath.errors import Overloaded

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

FLIGHTS_MAX: Final = 1_000
"""Loads under way in one process, those that nobody waits for any more included; more are refused."""

CLOSE_TIMEOUT_S: Final = 1.0


class Flights(Generic[K, T]):
    """Loads under way, by key."""

    def __init__(self, *, deadline_s: float, join_s: float, flights_max: int = FLIGHTS_MAX) -> None:
        """Let callers wait `deadline_s` seconds at most, and join loads that began `join_s` ago or later."""
        self._deadline_s = deadline_s
        self._join_s = join_s
        self._flights_max = flights_max
        self._newest: dict[K, tuple[asyncio.Task[T], float]] = {}
        self._running: set[asyncio.Task[T]] = set()

    def __len__(self) -> int:
        """How many loads are under way."""
        return len(self._running)

    async def join(self, key: K, load: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What a load of `key` gives, or raises. Raises TimeoutError at the deadline, and Overloaded.

        The load goes on after the deadline, so it has to end by itself.
        """
        flight = self.start(key, load)
        done, _ = await asyncio.wait((flight,), timeout=self._deadline_s)
        if not done:
            raise TimeoutError(f"no answer within {self._deadline_s:g} s")
        if flight.cancelled():
            raise TimeoutError("the load was given up")
        return flight.result()

    def start(self, key: K, load: Callable[[], Coroutine[Any, Any, T]]) -> "asyncio.Task[T]":
        """The load of `key` that is under way, else a new one. Raises Overloaded."""
        now = monotonic()
        newest = self._newest.get(key)
        if newest is not None and now - newest[1] <= self._join_s:
            return newest[0]
        if len(self._running) >= self._flights_max:
            raise Overloaded(f"{len(self._running)} loads are under way already")
        flight = asyncio.create_task(load())
        self._newest[key] = (flight, now)
        self._running.add(flight)
        flight.add_done_callback(lambda _: self._ended(key, flight))
        return flight

    async def close(self) -> None:
        """Cancel what is under way, and wait a second for it to end."""
        for flight in self._running:
            flight.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_TIMEOUT_S)

    def _ended(self, key: K, flight: "asyncio.Task[T]") -> None:
        self._running.discard(flight)
        newest = self._newest.get(key)
        if newest is not None and newest[0] is flight:
            del self._newest[key]
        if not flight.cancelled():
            flight.exception()  # else asyncio complains where nobody waited for it
