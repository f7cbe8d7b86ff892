"""`Line`: those of one process who wait for one lock, in order, with one place in the server's line.

Each time the lock comes to this process it goes to its first waiter, and the line goes to the end of the
server's line for the next one: so processes take turns. A place that nobody here wants any more is given up.
If the process dies here, its place is skipped, because its channel has no receiver left.
"""

import asyncio
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from app.hotpath.errors import (
    ErrorReply,
    HotpathError,
    MayHaveHappened,
    NotNow,
    NotSent,
    Overloaded,
    Unreachable,
)
from app.hotpath.locks_lease import ACQUIRE, Lease, LockNotAcquired

if TYPE_CHECKING:
    from app.hotpath.locks import Locks

NET_S: Final = 1.0
"""Whoever is not woken for this long asks again: the net under lost wakes."""
WAITERS_MAX: Final = 10_000
"""Waiters for one lock in one process; more are refused."""


class Line:
    """The waiters of one process for one lock. Its task lives while there are any."""

    def __init__(self, locks: "Locks", name: str, keys: tuple[str, str], owner: str) -> None:
        """Made by `Locks.line`; `owner` is the place that somebody is just asking for, "" for none."""
        self.owner = owner
        self._locks = locks
        self._name = name
        self._keys = keys
        self._waiters: dict[Lease, None] = {}
        self._bell = asyncio.Event()
        self._lifetime_s = NET_S  # the longest that our place may have got the lock for
        self._given: tuple[str, int, int, float] | None = None
        self._trouble: HotpathError | None = None
        self._task: asyncio.Task[None] | None = None

    # --- for those who wait ------------------------------------------------------------------------------

    def join(self, lease: Lease, *, first: bool = False) -> None:
        """Stand in line, behind the others or before them. Raises Overloaded."""
        if first:
            self._waiters = {lease: None, **self._waiters}
        elif len(self._waiters) < WAITERS_MAX:
            self._waiters[lease] = None
        else:
            raise Overloaded(f"{WAITERS_MAX} wait for the lock {self._name!r} in this process already")

    def refuse(self, lease: Lease) -> None:
        """Its time is up."""
        error = LockNotAcquired(f"the lock {self._name!r} was another's for {lease.wait_s} s")
        error.__cause__ = self._trouble
        self._fail(lease, error)

    def left(self, lease: Lease) -> None:
        """It waits no more."""
        self._waiters.pop(lease, None)
        if not self._waiters:
            self._bell.set()  # so that the place is given up at once

    # --- for those who have the lock, or asked for it themselves --------------------------------------------

    def begin(self, owner: str, pause_s: float) -> None:
        """Wait with this place in the server's line ("" for none), and ask again in so many seconds."""
        self.owner = owner
        if self._task is None:
            self._task = self._locks.start(self._stand(pause_s))

    def stop(self) -> "list[asyncio.Task[None]]":
        """The locks are closed: refuse everybody. The task that ends now, if any."""
        if self._task is None:
            return []
        self._task.cancel()
        return [self._task]

    def wake(self) -> None:
        """Ask again at once."""
        self._bell.set()

    def place(self) -> tuple[str | int, ...]:
        """Who stands in the server's line for us, and the lifetime (ms) that the lock is wanted for."""
        lease = self._first()
        if lease is None or not self.owner:
            return ()
        self._lifetime_s = max(self._lifetime_s, lease.lifetime_s)
        return (self.owner, lease.lifetime_ms)

    def given(self, token: int, asked_at: float, owner: str | int, lifetime_ms: str | int) -> None:
        """The lock's last holder, in this very process, was told that it went to our place."""
        if owner == self.owner:
            self._given = (owner, int(lifetime_ms), token, asked_at)
            self._bell.set()

    # --- the task ------------------------------------------------------------------------------------------

    async def _stand(self, pause_s: float) -> None:
        try:
            while True:
                await self._rest(pause_s)
                if self._first() is None:
                    break
                pause_s = await self._step()
        finally:
            self._end()

    async def _rest(self, pause_s: float) -> None:
        if pause_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause_s, NET_S)):
                    await self._bell.wait()
        self._bell.clear()

    async def _step(self) -> float:
        """Ask for the lock once, or take what was given; the seconds until the next question."""
        given, self._given = self._given, None
        if given is not None and given[0] == self.owner:
            return self._take(*given[1:])
        lease = self._first()
        assert lease is not None, "somebody waits"
        self.owner = self.owner or self._locks.new_owner()
        asked_at, lifetime_ms = monotonic(), lease.lifetime_ms
        self._lifetime_s = max(self._lifetime_s, lease.lifetime_s)
        try:
            reply = await self._locks.ask(ACQUIRE, self._keys, self.owner, lifetime_ms, "again")
        except (NotSent, MayHaveHappened, NotNow) as error:
            self._trouble = error
            return NET_S  # a new connection wakes us
        except ErrorReply as error:  # a wrong type, no permission: waiting mends nothing
            for waiter in tuple(self._waiters):
                self._fail(waiter, error)
            return 0.0
        self._trouble = None
        if reply > 0:
            return self._take(lifetime_ms, reply, asked_at)
        return -reply / 1000  # one millisecond more than the present holder has

    def _take(self, lifetime_ms: int, token: int, asked_at: float) -> float:
        """The lock came: it is the first one's. Nobody left: the place is given up with it."""
        lease = self._first()
        if lease is None or lease.lifetime_ms != lifetime_ms:
            return 0.0  # asked again, it gets the lifetime that it is wanted for
        owner, self.owner, self._given = self.owner, "", None
        del self._waiters[lease]
        lease.won(token, asked_at, owner)
        assert lease.turn is not None, "it waits"
        lease.turn.set_result(None)
        return 0.0

    def _first(self) -> Lease | None:
        """The first who still waits; some were cancelled and do not know it yet."""
        for lease in self._waiters:
            if lease.turn is not None and not lease.turn.done():
                return lease
        return None

    def _fail(self, lease: Lease, error: HotpathError) -> None:
        if lease.turn is not None and not lease.turn.done():
            lease.turn.set_exception(error)

    def _end(self) -> None:
        self._locks.forget(self, self._name)
        if self.owner:
            self._locks.give_back(self._keys[0], self.owner, self._lifetime_s)
        for lease in tuple(self._waiters):  # only when the locks are closed under them
            self._fail(lease, Unreachable("nothing was asked: the locks are closed"))
