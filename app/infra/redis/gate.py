"""`Gate`: how many pieces of each SKU may still be ordered, counted in Redis, kept near what PostgreSQL says.

The counts are advice: they let a sold-out SKU be refused within the first round trip, and PostgreSQL decides
about everything else. So what matters here is that they heal:

- A SKU that was refused is looked up in PostgreSQL soon after, once for all processes: not at once, because
  what took the last pieces may not be committed yet. What is taken during the look is subtracted; a look
  that finds more than was counted is followed by another, until PostgreSQL has seen all that was taken.
- Where there are no counts (a flushed Redis), or they are those of another life of the server, everything
  passes and the counts are made anew, by one process, less what passed meanwhile.
- What was admitted without the gate (Redis away, an answer that did not come) is looked up when it is back.

If the process dies here, pieces that it was to give back stay taken until somebody is refused them.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, Self, TypeAlias

from app.domain.errors import Unavailable
from app.hotpath.client import Client
from app.hotpath.errors import ErrorReply, HotpathError, NotNow
from app.infra.redis.gate_counts import GateCounts
from app.infra.tasks import end
from app.observability.logging import logger

LOOK_AFTER_S: Final = 0.3
"""How long after a refusal PostgreSQL is asked: what took the last pieces is committed by then."""
SETTLE_S: Final = 0.05
"""Between finding no counts and asking PostgreSQL: what was taken from the lost ones is committed by then."""
AGAIN_S: Final = 0.05
"""When a SKU is tried again that another process has looked at just now."""
RETRY_S: Final = 0.2
NOTED_MAX: Final = 10_000
"""SKUs that wait to be looked at. Beyond that, all counts are given up and made anew."""
UNKNOWN_MAX: Final = 5_000
"""More SKUs without a count are not noted: callers may ask for whatever they like."""
CHANGED_WITHIN_S: Final = 0.1
"""What counting new stock may cost whoever brings it."""
CLOSE_TIMEOUT_S: Final = 2.0

Lines: TypeAlias = Iterable[tuple[str, int]]
"""SKUs with pieces."""

log = logger("gate")


class Shelves(Protocol):
    """PostgreSQL's word on what may still be ordered."""

    async def available(self, skus: Collection[str] | None) -> Mapping[str, int]:
        """Pieces of these SKUs (None: of all) that are in no order; SKUs that do not exist are left out.

        Raises Unavailable.
        """
        ...


class Gate:
    """Keeps the counts of one environment right. What callers tell it costs them next to nothing."""

    def __init__(self, client: Client, shelves: Shelves, environment: str) -> None:
        """Count on this server what these shelves have. Use it with `async with`."""
        self._client = client
        self._shelves = shelves
        self._counts = GateCounts(client, environment)
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._noted: dict[str, float] = {}  # SKU → when it is to be looked at (loop time)
        self._must_check = True  # whether there are counts, of this life of the server
        self._must_forget = False
        self._back: Counter[str] = Counter()
        self._correcting: asyncio.Handle | None = None
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._client.when_connected.append(self.missing)
        self._start(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.when_connected.remove(self.missing)
        if self._correcting is not None:
            self._correcting.cancel()
            await self._correct()
        await end(self._tasks, within_s=CLOSE_TIMEOUT_S)

    # --- what callers tell ------------------------------------------------------------------------

    def look_again(self, skus: Iterable[str]) -> None:
        """Ask PostgreSQL about these soon: they were refused, or admitted without being counted."""
        due_at = self._time() + LOOK_AFTER_S
        for sku in skus:
            if sku in self._noted:
                continue
            if len(self._noted) >= NOTED_MAX:
                self.broken()
                return
            if not self._noted:
                self._wake.set()
            self._noted[sku] = due_at

    def unknown(self, skus: Iterable[str]) -> None:
        """The counts lacked some of these: count them too, if they exist."""
        if len(self._noted) < UNKNOWN_MAX:
            self.look_again(skus)

    def missing(self) -> None:
        """There are no counts, or they may be old ones: make them anew where that is so."""
        self._must_check = True
        self._wake.set()

    def broken(self) -> None:
        """The counts cannot be used: give them up and make them anew."""
        self._must_forget = True
        self._wake.set()

    def give_back(self, lines: Lines) -> None:
        """These pieces were taken for a request that was refused after all.

        What one tick has to give back is sent together, in the next: before anybody who hears of the refusal
        can ask this process again.
        """
        for sku, pieces in lines:
            self._back[sku] += pieces
        if self._correcting is None:
            self._correcting = self._loop.call_soon(lambda: self._start(self._correct()))

    async def changed(self, sku: str, delta: int) -> None:
        """So many pieces more (or fewer) are on the shelf, committed: sell them at once.

        Returns when they are counted, so that nobody who was told of them is refused them; or without that
        after CHANGED_WITHIN_S, and they are counted soon.
        """
        self.look_again((sku,))
        await asyncio.wait((self._start(self._add({sku: delta}, back=False)),), timeout=CHANGED_WITHIN_S)

    # --- what is done about it ----------------------------------------------------------------------

    async def _correct(self) -> None:
        """Give back what a tick had to."""
        self._correcting = None
        pieces, self._back = self._back, Counter()
        await self._add(pieces, back=True)

    async def _add(self, pieces: Mapping[str, int], *, back: bool) -> None:
        """Correct the counts. A lost correction heals: whoever is refused has it looked up."""
        with suppress(HotpathError):
            await self._counts.add(pieces, back=back)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep(self) -> None:
        """Do what is due, for ever."""
        said = ""
        while True:
            await self._wait()
            try:
                await self._do_what_is_due()
            except (HotpathError, Unavailable) as error:
                if isinstance(error, ErrorReply) and not isinstance(error, NotNow):
                    self._must_forget = True  # somebody has written something else there
                if said != type(error).__name__:
                    said = type(error).__name__
                    log.warning("gate_waits", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                said = ""

    async def _wait(self) -> None:
        """Until something is due."""
        while not (self._must_check or self._must_forget):
            self._wake.clear()
            first_at, now = min(self._noted.values(), default=None), self._time()
            if first_at is not None and first_at <= now:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(None if first_at is None else first_at - now):
                    await self._wake.wait()

    async def _do_what_is_due(self) -> None:
        """Raises HotpathError and Unavailable."""
        if self._must_forget:
            await self._counts.forget()
            self._must_forget = False
            self._must_check = True
        if self._must_check:
            # Cleared before the answer is known: what is told meanwhile is checked again.
            self._must_check = False
            try:
                self._must_check = not (await self._counts.are_here() or await self._rebuild())
            except BaseException:
                self._must_check = True
                raise
            return
        now = self._time()
        await self._look([sku for sku, due_at in self._noted.items() if due_at <= now])

    async def _look(self, skus: Sequence[str]) -> None:
        """Ask PostgreSQL about those that nobody has asked about just now. Raises as above."""
        look = await self._counts.begin(skus)
        if look is None:
            self._must_check = True
            return
        again_at = self._time() + AGAIN_S
        for sku in look.busy:
            self._noted[sku] = again_at
        for sku in look.seen:  # whoever is refused from now on has them looked up once more
            del self._noted[sku]
        if not look.seen:
            return
        try:
            await self._counts.note(look)
            found = await self._shelves.available(look.seen)
            await self._counts.put(look, found)
        except (HotpathError, Unavailable):
            self.look_again(look.seen)
            raise
        # What was taken but not committed is in these counts again; nobody would be refused, nor look.
        self.look_again(sku for sku, count in look.seen.items() if count and found.get(sku, 0) > int(count))

    async def _rebuild(self) -> bool:
        """Make the counts anew, unless somebody else does; whether they are there. Raises as above."""
        token = await self._counts.lock()
        if token is None:
            await asyncio.sleep(AGAIN_S)
            return False
        started = time.perf_counter()
        holding = self._start(self._counts.hold())
        try:
            if await self._counts.are_here():  # somebody was quicker than our first look
                await self._counts.unlock()
                return True
            await asyncio.sleep(SETTLE_S)
            found = await self._shelves.available(None)
            passed = await self._counts.replace(token, found)
        except (HotpathError, Unavailable):
            with suppress(HotpathError):
                await self._counts.unlock()
            raise
        finally:
            holding.cancel()
        if passed is None:
            return False
        log.info("gate_rebuilt", skus=len(found), ms=round((time.perf_counter() - started) * 1000))
        # What passed meanwhile may have been subtracted twice: once here, once by PostgreSQL.
        self.look_again(passed)
        return True
