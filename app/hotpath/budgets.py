"""`Budgets`: callers' limits, leased to this process in portions, so that most requests ask nobody.

A portion is taken from the caller's limit at the server before it is used, grows while it is used up quickly
and is renewed in the background before it is; what is not used lapses. So all processes together never let
more through in a window than the limit allows in it and what they held when it began: one and a half portions
each, where a portion is at most a twentieth of the limit. A limit too small for that is asked for each time.

While the server is away, the process limits by itself. If it dies here, what it held lapses.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from app.hotpath.admission_policy import Decision, Policy
from app.hotpath.buckets import Buckets
from app.hotpath.client import Client
from app.hotpath.errors import ErrorReply, HotpathError, NotNow
from app.hotpath.scripts import Script

LAPSE_S: Final = 0.5
"""After this, what is left of a portion is nobody's."""
PORTION_FIRST: Final = 4
PORTIONS_MIN: Final = 20
"""A limit is at least so many portions."""
GIVEN_BACK_S: Final = 0.01
"""For at least so long there is what was given back."""
REFUSED_MIN_S: Final = 0.002
"""A caller over its limit is refused for at least this long without asking again."""
AWAY_S: Final = 0.05
"""A server that did not answer is not asked again for this long."""
CALLERS_MAX: Final = 10_000


class _Lease:
    """What this process holds of one caller's limit."""

    __slots__ = (
        "beyond",
        "held",
        "left",
        "low",
        "policy",
        "portion",
        "refusal",
        "refused_until",
        "renewing",
        "until",
        "waiting",
    )

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.left = 0  # requests that may pass without asking
        self.until = 0.0  # when they lapse (loop time)
        self.low = -1  # with so many left, more are asked for
        self.beyond = 0  # requests that were left at the server
        self.held = 0  # requests that were here after the last portion came
        self.portion = min(PORTION_FIRST, max(1, policy.limit // PORTIONS_MIN))
        self.refusal = policy.refused(0)
        self.refused_until = 0.0
        self.waiting = 0  # requests that cannot go on without more
        self.renewing: asyncio.Task[None] | None = None

    def next_portion(self, now: float) -> int:
        """How many requests to take in advance: more where the last ones went quickly, else fewer."""
        if now >= self.until:
            self.portion = max(1, min(self.portion, self.held - self.left)) if self.held else self.portion
        else:
            self.portion = min(self.portion * 2, max(1, self.policy.limit // PORTIONS_MIN))
        wanted, self.waiting = max(self.portion, self.waiting), 0
        return wanted

    def add(self, taken: int, beyond: int, *, now: float) -> None:
        """Take what was granted to what has not lapsed."""
        carried = self.left if now < self.until else 0
        self.left = self.held = min(carried + taken, self.policy.limit)
        # A small portion is not renewed in advance: too much of it would lapse.
        self.low = self.portion // 2 if self.portion >= PORTION_FIRST else -1
        self.beyond = min(beyond, self.policy.limit - self.held)  # it may be whole again meanwhile
        self.until = now + LAPSE_S


class Budgets:
    """Leases of many callers. One object serves one policy's name; the limit may differ from key to key."""

    def __init__(self, client: Client, buckets: Buckets, key: Callable[[str], str]) -> None:
        """Lease from this server; `key` gives the key of a caller's limit."""
        self._client = client
        self._buckets = buckets
        self._key = key
        self._time = asyncio.get_running_loop().time
        self._away_until = 0.0
        self._leases: dict[str, _Lease] = {}
        self._script = Script.load("lease")

    def try_take(self, caller: str, policy: Policy) -> Decision | None:
        """Decide without asking; None where that cannot be."""
        lease = self._leases.get(caller)
        if lease is None or lease.policy is not policy:
            return None
        now = self._time()
        if lease.left > 0 and now < lease.until:
            lease.left = left = lease.left - 1
            if left <= lease.low and lease.renewing is None and now >= lease.refused_until:
                self._renew(caller, lease)
            return policy.allowed(lease.beyond + left)
        if now < lease.refused_until:
            return lease.refusal
        return None

    async def take(self, caller: str, policy: Policy) -> Decision:
        """Decide, asking where it must be; raises nothing."""
        while True:
            decision = self.try_take(caller, policy)
            if decision is not None:
                return decision
            if self._time() < self._away_until:
                return self._buckets.take(caller, policy)
            lease = self._lease(caller, policy)
            lease.waiting += 1
            renewing = lease.renewing or self._renew(caller, lease)
            try:
                await asyncio.shield(renewing)
            except HotpathError:
                self._away_until = self._time() + AWAY_S
                return self._buckets.take(caller, policy)

    def give_back(self, caller: str, policy: Policy) -> None:
        """A request that was just let through asks once more, at once: it must not count twice."""
        lease, now = self._lease(caller, policy), self._time()
        lease.left = (lease.left if now < lease.until else 0) + 1
        lease.until = max(lease.until, now + GIVEN_BACK_S)

    async def close(self) -> None:
        """Wait for what was asked; each ends within the client's deadline."""
        tasks = [lease.renewing for lease in self._leases.values() if lease.renewing]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _lease(self, caller: str, policy: Policy) -> _Lease:
        lease = self._leases.get(caller)
        if lease is None or lease.policy is not policy:
            self._leases.pop(caller, None)
            while len(self._leases) >= CALLERS_MAX:
                del self._leases[next(iter(self._leases))]
            lease = self._leases[caller] = _Lease(policy)
        return lease

    def _renew(self, caller: str, lease: _Lease) -> asyncio.Task[None]:
        task = lease.renewing = asyncio.get_running_loop().create_task(self._ask(caller, lease))
        task.add_done_callback(_look)
        return task

    async def _ask(self, caller: str, lease: _Lease) -> None:
        """Take another portion. Raises HotpathError."""
        policy, key = lease.policy, self._key(caller)
        arguments = (*policy.arguments, lease.next_portion(self._time()))
        try:
            reply = await self._client.evaluate(self._script, (key,), arguments)
        except ErrorReply as error:
            if not isinstance(error, NotNow):  # not ours: somebody else wrote there
                self._client.execute("UNLINK", key).add_done_callback(_look)
            raise
        finally:
            lease.renewing = None
        now = self._time()
        if reply.__class__ is int:
            lease.refusal = policy.refused(-reply)
            lease.refused_until = now + max(-reply / 1_000_000, REFUSED_MIN_S)
        else:
            lease.add(*reply, now=now)


def _look(future: "asyncio.Future[Any]") -> None:
    """Look at an outcome nobody may wait for, so that it is not reported as never looked at."""
    if not future.cancelled():
        future.exception()
