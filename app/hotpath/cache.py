"""`Cache`: values read through to a loader, one load of a key at a time, never older than they may be.

A value is finished bytes: it goes to readers as it is stored, and is never decoded here. Every value carries
its version, when it was loaded and until when it is fresh, in the server's time: a write that was lost on the
way and arrives late is refused by the script, and a reader that finds one all the same does not use it. The
newer version wins, however writes overtake one another. Redis away: the loader is asked directly, still once
for all who want the same. If the process dies here, what was not written is loaded by the next reader.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, TypeAlias

from app.hotpath.cache_clock import ServerClock
from app.hotpath.cache_entries import Entry, Found, Loaded, judge, stored_as
from app.hotpath.client import Client
from app.hotpath.errors import ErrorReply, HotpathError, Overloaded
from app.hotpath.flights import Flights
from app.hotpath.scripts import Script

LOAD_DEADLINE_S: Final = 2.5
"""How long a reader waits for the loader."""
JOIN_S: Final = 0.5
"""A load that began longer ago than this is joined by nobody."""
WAITING_MAX: Final = 1_000
"""Values that wait to be written; more are left to the next reader."""
BATCH_MAX: Final = 100

_PUT: Final = Script.load("put")


Load: TypeAlias = Callable[[], Coroutine[Any, Any, Loaded]]


class CacheStatistics:
    """Counters of one cache since it was made; all only grow.

    `hits` were fresh in Redis (`early` of them had a load begun behind them), `misses` were not there,
    `stale` stood in for a loader that was away. `loads` were begun, `load_errors` of them failed. `puts` were
    taken, `older` lost to a newer version, `late` came after their time, `unput` failed or found no room.
    `errors` are reads that Redis did not answer.
    """

    __slots__ = (
        "early",
        "errors",
        "hits",
        "late",
        "load_errors",
        "loads",
        "misses",
        "older",
        "puts",
        "stale",
        "unput",
    )

    def __init__(self) -> None:
        """Start at zero."""
        self.hits = self.early = self.misses = self.stale = self.errors = 0
        self.loads = self.load_errors = 0
        self.puts = self.older = self.late = self.unput = 0


class Cache:
    """Values in one Redis. Keys and loaders are the caller's."""

    def __init__(
        self,
        client: Client,
        *,
        reads: Client | None = None,
        away: tuple[type[Exception], ...] = (OSError,),
        beta: float = 1.0,
        load_deadline_s: float = LOAD_DEADLINE_S,
        join_s: float = JOIN_S,
    ) -> None:
        """Write by `client`, read by it too unless `reads` is given (same server).

        `away` is what loaders raise where nothing is known; only then a stale value stands in. `beta` above 1
        loads earlier before a lifetime ends, 0 never.
        """
        self.statistics = CacheStatistics()
        self._client = client
        self._reads = reads or client
        self._away: tuple[type[BaseException], ...] = (TimeoutError, Overloaded, *away)
        self._beta = beta
        self._clock = ServerClock(client)
        self._flights: Flights[str, Loaded] = Flights(deadline_s=load_deadline_s, join_s=join_s)
        self._waiting: dict[str, Entry] = {}
        self._putting: asyncio.Task[None] | None = None

    async def read(self, key: str, load: Load) -> bytes | None:
        """The value of a key, from Redis or from `load`; None where there is none.

        Raises what `load` raises, TimeoutError at the deadline of loads, and Overloaded.
        """
        try:
            found = await self.find(key)
        except HotpathError:
            found = None
        if found is None:
            return (await self.load(key, load)).body
        if found.is_due:
            self.statistics.early += 1
            self.refresh(key, load)
        if found.is_fresh:
            return found.body
        try:
            return (await self.load(key, load)).body
        except self._away:
            self.statistics.stale += 1
            return found.body

    async def find(self, key: str) -> Found | None:
        """What Redis has for a key and may still be used. Raises HotpathError."""
        statistics = self.statistics
        try:
            stored = await self._reads.execute("GET", key, safe=True)
            if stored is not None and not self._clock.is_known(monotonic()):
                await self._clock.know()
        except HotpathError:
            statistics.errors += 1
            raise
        found = None if stored is None else judge(stored, self._clock.latest(monotonic()), self._beta)
        if found is None:
            statistics.misses += 1
        elif found.is_fresh:
            statistics.hits += 1
        return found

    async def load(self, key: str, load: Load) -> Loaded:
        """Load a key past Redis, once for all who want it now, and have it written.

        Raises what `load` raises, TimeoutError and Overloaded.
        """
        return await self._flights.join(key, lambda: self._load(key, load))

    def refresh(self, key: str, load: Load) -> "asyncio.Task[Loaded] | None":
        """Load a key in the background and have it written; None where too many loads are under way."""
        try:
            return self._flights.start(key, lambda: self._load(key, load))
        except Overloaded:
            return None

    def put_soon(self, entry: Entry) -> None:
        """Have a value written in the background. Costs the caller nothing and never raises."""
        waiting = self._waiting.get(entry.key)
        if waiting is None and len(self._waiting) >= WAITING_MAX:
            self.statistics.unput += 1
            return
        if waiting is None or _rank(waiting) <= _rank(entry):
            self._waiting[entry.key] = entry
        if self._putting is None or self._putting.done():
            self._putting = asyncio.create_task(self._put_waiting())

    async def put_all(self, entries: Sequence[Entry], *, deadline_s: float | None = None) -> int:
        """Write values in one round trip, each unless a newer one is there; how many were taken.

        Raises HotpathError where any of them may not have been written; the others were.
        """
        if not entries:
            return 0
        try:
            await self._clock.know()
            asked_at = monotonic()
            replies = await self._send(entries, deadline_s)
        except HotpathError:
            self.statistics.unput += len(entries)
            raise
        failed = [reply for reply in replies if isinstance(reply, BaseException)]
        outcomes = [reply[0] for reply in replies if not isinstance(reply, BaseException)]
        if not failed:
            self._clock.learn(replies[-1][1], asked_at=asked_at, heard_at=monotonic())
        self.statistics.unput += len(failed)
        self.statistics.puts += outcomes.count(1)
        self.statistics.older += outcomes.count(0)
        self.statistics.late += outcomes.count(-1)
        if failed:
            raise failed[0]
        return outcomes.count(1)

    async def forget(self, key: str) -> None:
        """Remove whatever is there. Raises HotpathError."""
        await self._client.execute("UNLINK", key, safe=True)

    async def close(self) -> None:
        """Stop; what waits to be written is left to the next reader."""
        if self._putting is not None:
            self._putting.cancel()
            await asyncio.gather(self._putting, return_exceptions=True)
        await self._flights.close()

    async def _load(self, key: str, load: Load) -> Loaded:
        as_of = monotonic()
        self.statistics.loads += 1
        try:
            loaded = await load()
        except BaseException:
            self.statistics.load_errors += 1
            raise
        self.put_soon(Entry(key, loaded, as_of, monotonic() - as_of))
        return loaded

    async def _put_waiting(self) -> None:
        while self._waiting:
            batch = [self._waiting.pop(key) for key in list(self._waiting)[:BATCH_MAX]]
            with suppress(HotpathError):  # counted; the next reader loads it
                await self.put_all(batch)

    async def _send(self, entries: Sequence[Entry], deadline_s: float | None) -> list[Any]:
        """The script's replies, or the errors that stand for them."""
        commands = [
            (entry.key, *stored_as(entry, loaded_at=int(self._clock.earliest(entry.as_of))))
            for entry in entries
        ]
        replies = await self._run("EVALSHA", _PUT.sha, commands, deadline_s)
        lost = [n for n, reply in enumerate(replies) if isinstance(reply, ErrorReply) and _is_lost(reply)]
        if lost:
            again = await self._run("EVAL", _PUT.source, [commands[n] for n in lost], deadline_s)
            for n, reply in zip(lost, again, strict=True):
                replies[n] = reply
        return replies

    async def _run(
        self,
        how: str,
        script: str | bytes,
        commands: Sequence[tuple[str | bytes | int, ...]],
        deadline_s: float | None,
    ) -> list[Any]:
        issued = [
            self._client.execute(how, script, 1, *command, safe=True, deadline_s=deadline_s)
            for command in commands
        ]
        return await asyncio.gather(*issued, return_exceptions=True)


def _rank(entry: Entry) -> tuple[int, int, float]:
    return entry.loaded.version, entry.loaded.change, entry.as_of


def _is_lost(error: ErrorReply) -> bool:
    """Whether the server has lost the script."""
    return error.code == "NOSCRIPT"
