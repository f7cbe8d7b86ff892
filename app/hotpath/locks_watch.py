"""`Watch`: keeps the leases of one process alive, and tells their holders when that is over.

One timer for all of them, set for the lease that needs something first; a lease that ends before costs it
nothing. If the process dies here, nobody renews, and the server frees the locks.
"""

import asyncio
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from app.hotpath.errors import HotpathError
from app.hotpath.locks_lease import EXTEND, Lease

if TYPE_CHECKING:
    from app.hotpath.locks import Locks

GRAIN: Final = 60
"""What is due within one of so many parts of a lifetime is due now, so that the timer rests in between."""
TRIES: Final = 12
"""A renewal that is not answered is tried again after one of so many parts of the lifetime."""


class Watch:
    """The leases that are held."""

    def __init__(self, locks: "Locks") -> None:
        """Made by `Locks`."""
        self.held: dict[str, Lease] = {}
        self.due_at = inf
        self._locks = locks
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def verify(self) -> None:
        """Ask for every lease whether it is still there: the server may be another one now."""
        for lease in self.held.values():
            lease.renew_at = 0.0
        self._look()

    async def renew(self, lease: Lease) -> None:
        """Begin the lifetime anew, or learn that the lock is lost. Raises HotpathError."""
        asked_at = lease.asked_at = monotonic()
        reply = await self._locks.ask(EXTEND, (lease.key,), lease.owner, lease.lifetime_ms)
        if self.held.get(lease.owner) is not lease:
            return
        if not reply:
            lease.end("the server does not know it as ours any more")
        elif lease.asked_at == asked_at:  # a later question, not answered yet, may have set another lifetime
            lease.agreed(asked_at)

    def look_at(self, when: float) -> None:
        """Look after the leases then; inf: not at all."""
        if self._timer is not None:
            self._timer.cancel()
        self.due_at = when
        self._timer = None if when == inf else self._loop.call_later(max(0.0, when - monotonic()), self._look)

    def _look(self) -> None:
        now, due_at = monotonic(), inf
        for lease in tuple(self.held.values()):
            soon = now + lease.lifetime_s / GRAIN
            if lease.expires_at <= soon:
                lease.end("its lifetime ended before Redis answered a renewal")
                self._locks.give_back(lease.key, lease.owner, lease.lifetime_s)
                continue
            if lease.renew_at <= soon:
                lease.renew_at = now + lease.lifetime_s / TRIES
                self._locks.start(self._try_to_renew(lease))
            due_at = min(due_at, lease.renew_at, lease.expires_at)
        self.look_at(due_at)

    async def _try_to_renew(self, lease: Lease) -> None:
        try:
            await self.renew(lease)
        except HotpathError:
            return  # the next look tries again, or finds that the lifetime has ended
