"""One run of the load generator: who sends what when, and the counting.

Closed: an answer lets its connection send the next request. Open: a timer of the kernel says when requests
are due; each takes an idle connection or waits for one, and its latency counts from when it was due. A run
ends when the time is over and everything under way was answered or has outlived the bound.
"""

import asyncio
import contextlib
import ctypes
import os
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import Final

from bench.load import Kept, LoadError, Plan, Result
from bench.load_connection import IDLE, Connection

HOST: Final = "127.0.0.1"
TICK_MIN_S: Final = 0.0002
_LOOK_S: Final = 0.05
_AGAIN_S: Final = 0.02
_CLOCK_MONOTONIC: Final = 1
_TFD_NONBLOCK: Final = os.O_NONBLOCK


class Run:
    """Runs a plan once."""

    def __init__(self, plan: Plan) -> None:
        """Prepare to run this plan."""
        if not plan.requests:
            raise LoadError("There is nothing to send.")
        self._plan = plan
        self._requests = plan.requests
        self._limit = None if plan.repeat else len(plan.requests)
        self._next = 0  # number of the next request
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._due: deque[float] = deque()  # open: when those that have no connection yet were due
        self._opening: set[asyncio.Task[None]] = set()
        self._is_over = False  # nothing more is sent for the first time
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._until = 0.0
        self._last = 0.0  # when the last answer came
        self._looking: asyncio.TimerHandle | None = None
        self._answered = 0
        self._statuses: dict[int, int] = {}
        self._unanswered = 0
        self._lost = 0
        self._latencies = array("f")
        self._late = 0.0
        self._kept: dict[int, Kept] = {}
        self._firsts: dict[int, Kept] = {}

    async def result(self) -> Result:
        """Run to the end. Raises LoadError."""
        plan, loop = self._plan, asyncio.get_running_loop()
        try:
            await asyncio.gather(*(self._open() for _ in range(plan.connections)))
        except OSError as error:
            raise LoadError(f"Nobody listens on port {plan.port}: {error}") from None
        ticking = _Ticks(loop) if plan.rate else None
        began = time.perf_counter()
        self._until, self._last = began + plan.seconds, began
        self._looking = loop.call_later(_LOOK_S, self._look)
        try:
            if ticking is not None and plan.rate is not None:
                self._follow(ticking, plan.rate, began)
            else:
                for connection in list(self._connections):
                    self._go_on(connection, began)
            await self._ended
        finally:
            if self._looking is not None:
                self._looking.cancel()
            if ticking is not None:
                ticking.close()
            self._close()
        drained_s = self._last - began
        return self._made(drained_s if self._is_cut_short() else plan.seconds, drained_s)

    def _is_cut_short(self) -> bool:
        """Whether the requests were sent and answered before the time was over."""
        return self._limit is not None and self._next >= self._limit and self._last < self._until

    def _made(self, seconds: float, drained_s: float) -> Result:
        return Result(
            seconds=seconds,
            drained_s=drained_s,
            answered=self._answered,
            statuses=self._statuses,
            unanswered=self._unanswered,
            lost=self._lost,
            latencies=self._latencies.tobytes(),
            late_ms=self._late * 1000,
            cpu_s=0.0,
            kept=self._kept,
            firsts=self._firsts,
        )

    # -- what connections say

    def answered(self, connection: Connection, status: int, head_end: int, answer: bytes) -> None:
        """Count an answer and let its connection go on."""
        now = self._last = time.perf_counter()
        self._latencies.append((now - connection.began) * 1000)
        statuses = self._statuses
        if status in statuses:
            statuses[status] += 1
        else:
            statuses[status] = 1
            self._firsts[status] = Kept(status, answer[: head_end - 4], answer[head_end:])
        if now <= self._until:
            self._answered += 1
        if connection.number in self._plan.keep:
            self._kept[connection.number] = Kept(status, answer[: head_end - 4], answer[head_end:])
        connection.number = IDLE
        self._go_on(connection, now)

    def closed(self, connection: Connection) -> None:
        """Count what went with the connection; open another."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._ended.done():
            return
        if connection.number != IDLE:
            self._lost += 1
            self._latencies.append(self._plan.bound_s * 1000)
            connection.number = IDLE
        if self._is_over and not self._due:
            self._end_if_done()
        else:
            task = asyncio.create_task(self._open_again())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def broken(self, why: str) -> None:
        """Give the run up."""
        if not self._ended.done():
            self._ended.set_exception(LoadError(why))

    # -- sending

    def _go_on(self, connection: Connection, now: float) -> None:
        """Give a free connection something to do."""
        if self._plan.rate:
            if self._due:
                self._send(connection, self._due.popleft())
                return
        elif now < self._until and (self._limit is None or self._next < self._limit):
            self._send(connection, now)
            return
        else:
            self._is_over = True
        self._idle.append(connection)
        if self._is_over:
            self._end_if_done()

    def _send(self, connection: Connection, began: float) -> None:
        number = self._next
        self._next = number + 1
        connection.send(number, self._requests[number % len(self._requests)], began)

    def _follow(self, ticking: "_Ticks", rate: float, began: float) -> None:
        """Open way: at every tick, send what is due."""
        interval = 1 / rate
        total = int(self._plan.seconds * rate)
        total = total if self._limit is None else min(total, self._limit)
        given = 0

        def tick() -> None:
            nonlocal given
            now = time.perf_counter()
            while given < total and (due := began + given * interval) <= now:
                given += 1
                if self._idle:
                    self._late = max(self._late, now - due)
                    self._send(self._idle.pop(), due)
                else:
                    self._due.append(due)
            if given >= total:
                ticking.close()
                self._is_over = True
                self._end_if_done()

        self._idle = list(self._connections)
        ticking.start(max(interval, TICK_MIN_S), tick)

    # -- the end

    def _look(self) -> None:
        """Give up what has outlived the bound."""
        bound_s, now = self._plan.bound_s, time.perf_counter()
        while self._due and now - self._due[0] > bound_s:
            self._due.popleft()
            self._give_up()
        for connection in list(self._connections):
            if connection.age_s() > bound_s:
                self._give_up()
                connection.number = IDLE
                connection.transport.abort()
        if not self._plan.rate and now >= self._until:
            self._is_over = True
        if self._is_over:
            self._end_if_done()
        if not self._ended.done():
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _give_up(self) -> None:
        self._unanswered += 1
        self._latencies.append(self._plan.bound_s * 1000)

    def _end_if_done(self) -> None:
        if self._due or self._ended.done():
            return
        if all(connection.number == IDLE for connection in self._connections):
            self._ended.set_result(None)

    def _close(self) -> None:
        for task in self._opening:
            task.cancel()
        for connection in self._connections:
            connection.transport.abort()

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self), HOST, self._plan.port)
        self._connections.add(connection)
        return connection

    async def _open_again(self) -> None:
        while not self._ended.done():
            with contextlib.suppress(OSError):
                self._go_on(await self._open(), time.perf_counter())
                return
            await asyncio.sleep(_AGAIN_S)


class _Ticks:
    """A timer of the kernel in the event loop: the loop's own are no finer than a millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK)
        if self._file < 0:
            raise LoadError(f"timerfd_create: {os.strerror(ctypes.get_errno())}")

    def start(self, interval_s: float, tick: Callable[[], None]) -> None:
        """Call `tick` every `interval_s` seconds, from now on."""
        nanoseconds = max(int(interval_s * 1e9), 1)
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        times = (ctypes.c_long * 4)(seconds, rest, 0, 1)
        if self._libc.timerfd_settime(self._file, 0, ctypes.byref(times), None) != 0:
            raise LoadError(f"timerfd_settime: {os.strerror(ctypes.get_errno())}")

        def due() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._file, 8)
                tick()

        self._loop.add_reader(self._file, due)

    def close(self) -> None:
        """Stop; may be called again."""
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1
