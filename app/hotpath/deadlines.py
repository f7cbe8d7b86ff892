"""`Deadlines`: one timer for all commands, which looks for those whose time is up.

A timer a command would cost more than the command. So somebody looks when the earliest one may be due, and
not more often than every SWEEP_S; while nothing is under way nobody looks. A process that slept finds
its timer late, and reads what has arrived meanwhile before it blames the server.
"""

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final

SWEEP_S: Final = 0.01
"""The shortest time between two looks, so how late a command may end."""
LATE_S: Final = 0.03
"""A look that comes so much later than meant found the process itself asleep."""
PAUSE_MAX_S: Final = 1.0
_ROUNDING_S: Final = 0.001  # timers count milliseconds, and may be early by a part of one


class Deadlines:
    """Calls `look(now)` in time; it says when the next command is due, `inf` when none is under way."""

    def __init__(self, look: Callable[[float], float], shortest_s: float) -> None:
        """Commands have deadlines of `shortest_s` seconds or more, until `allow` says otherwise."""
        self.shortest_s = shortest_s
        self.is_running = False
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._meant_at = 0.0
        self._late_looks = 0

    def allow(self, deadline_s: float) -> None:
        """Look often enough for a deadline so short."""
        self.shortest_s = max(0.0, deadline_s)
        if self.is_running:
            self.stop()
            self.start()

    def start(self) -> None:
        """Begin to look, if nobody does."""
        if not self.is_running:
            self._schedule(monotonic(), inf)

    def stop(self) -> None:
        """Look no more."""
        self.is_running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, now: float, next_at: float) -> None:
        # Commands that are issued from now on are due no earlier than after the shortest deadline.
        latest = now + min(self.shortest_s, PAUSE_MAX_S)
        self._meant_at = max(now + SWEEP_S, min(next_at, latest) + _ROUNDING_S)
        self._timer = self._loop.call_at(self._meant_at, self._fire)
        self.is_running = True

    def _fire(self) -> None:
        now = monotonic()
        self._late_looks = self._late_looks + 1 if now - self._meant_at > LATE_S else 0
        if self._late_looks == 1:
            self._schedule(now, now)
        elif self._late_looks > 1:
            # A process that is always late ends its commands all the same, after what came has been read:
            # a loop reads between one tick and the one after the next, in whatever order it goes about it.
            self._timer = self._loop.call_soon(self._in_the_next_tick, self._fire_now)
        else:
            self._fire_now()

    def _in_the_next_tick(self, function: Callable[[], None]) -> None:
        self._timer = self._loop.call_soon(function)

    def _fire_now(self) -> None:
        now = monotonic()
        self.is_running = False
        self._late_looks = 0
        next_at = self._look(now)
        if next_at < inf and not self.is_running:
            self._schedule(now, next_at)
