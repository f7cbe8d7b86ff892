"""`Combiner`: collects what is asked in one moment, has it done together, gives each asker its own outcome.

Nothing waits while nothing is under way: the first question goes at once, with whatever else is asked in the
same tick of the event loop. What comes meanwhile goes together when the batch under way is done, when it is
enough for a whole batch, or `LINGER_S` after its first, as long as there is room for one more batch. Where
many ask, batches under way begin evenly spaced: if they began together, whoever comes next would wait for the
whole of one.

A batch that fails because PostgreSQL is away fails for everybody in it. One that fails in any other way is
halved again and again until only what is wrong is alone, so nobody pays for a neighbour's mistake. An asker
who is cancelled disturbs nobody. If the process dies here, each batch happened wholly or not at all.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from math import ceil
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from app.domain.errors import Unavailable

A = TypeVar("A")
R = TypeVar("R")

BATCH_SIZE_MAX: Final = 256
BATCH_WEIGHT_MAX: Final = 4096
"""How heavy a batch may be; what weighs more goes alone. Its unit is that of each question's weight."""
LINGER_S: Final = 0.002
SPACED_FROM: Final = 8.0
"""Of how many questions batches usually are where they are spaced; fewer would only wait for it."""
SPACE_MAX_S: Final = 0.1
"""How far apart batches begin at most, however long they take."""
_REMEMBERED: Final = 8
"""Of how many batches, roughly, what is usual is made."""
WAITING_MAX: Final = 4096
"""How many may wait for their batch; whoever comes then is told at once that it cannot be now."""
WAIT_MAX_S: Final = 2.5
"""What waited longer is not begun: nobody waits for it any more."""

Run: TypeAlias = Callable[[Sequence[A]], Awaitable[Sequence[R | Exception]]]
"""Does a batch in one transaction, in order of arrival: each one's result, or the error that is its own."""


class _Question(NamedTuple, Generic[A, R]):
    """What somebody asked, since when (the loop's clock), and what will come of it."""

    asked: A
    weight: int
    since: float
    outcome: asyncio.Future[R]


class Combiner(Generic[A, R]):
    """Asks `run` for many at a time, with at most `in_flight_max` batches under way."""

    def __init__(self, run: Run[A, R], *, in_flight_max: int = 2) -> None:
        """Combine what `run` does. It begins no batch before it is asked and needs no closing."""
        self._run = run
        self._in_flight_max = in_flight_max
        self._waiting: deque[_Question[A, R]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._begun_at = 0.0
        self._usual_s = self._usual_size = 0.0
        """How long a batch takes and how many ask in it, as moving averages."""

    async def ask(self, asked: A, weight: int = 1) -> R:
        """What comes of `asked`. Raises Unavailable, and what `run` raised or returned as an error for it."""
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("postgres", f"{WAITING_MAX} requests wait already")
        loop = asyncio.get_running_loop()
        question: _Question[A, R] = _Question(asked, weight, loop.time(), loop.create_future())
        self._waiting.append(question)
        self._go(loop)
        return await question.outcome

    def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a batch if it is time for one, or see to it that it is begun in time."""
        if not self._waiting or len(self._under_way) >= self._in_flight_max:
            return
        due = self._waiting[0].since + LINGER_S
        if self._usual_size >= SPACED_FROM:
            due = max(due, self._begun_at + min(self._usual_s / self._in_flight_max, SPACE_MAX_S))
        due = ceil(due * 1000) / 1000  # the loop's clock has whole milliseconds: less would be no wait at all
        if not self._under_way or len(self._waiting) >= BATCH_SIZE_MAX or loop.time() >= due:
            # In a context of its own: a batch belongs to no request. It takes what waits when it begins,
            # which is after everything that is ready to run in this tick has asked.
            self._begun_at = loop.time()
            task = loop.create_task(self._batch(), context=Context())
            self._under_way.add(task)
            task.add_done_callback(self._done)
        elif self._timer is None:
            self._timer = loop.call_at(due, self._due, loop)

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._go(loop)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._go(task.get_loop())

    async def _batch(self) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        batch = self._next()
        try:
            await self._carry_out(batch)
            self._usual_s += (loop.time() - began_at - self._usual_s) / _REMEMBERED
            self._usual_size += (len(batch) - self._usual_size) / _REMEMBERED
        finally:  # cancelled at the end of the process, or a defect here: nobody is left waiting
            for question in batch:
                question.outcome.cancel()

    def _next(self) -> list[_Question[A, R]]:
        """Take from those who wait as many as make a batch, in order of arrival."""
        batch: list[_Question[A, R]] = []
        weight = 0
        too_late = asyncio.get_running_loop().time() - WAIT_MAX_S
        while self._waiting and len(batch) < BATCH_SIZE_MAX:
            question = self._waiting[0]
            if batch and weight + question.weight > BATCH_WEIGHT_MAX:
                break
            self._waiting.popleft()
            if question.outcome.done():  # its asker is gone
                continue
            if question.since < too_late:
                question.outcome.set_exception(Unavailable("postgres", f"not begun within {WAIT_MAX_S:g} s"))
                continue
            batch.append(question)
            weight += question.weight
        return batch

    async def _carry_out(self, batch: Sequence[_Question[A, R]]) -> None:
        """Run a batch, in halves where it cannot be done together, and give everybody an outcome."""
        if not batch:
            return
        outcomes: Sequence[R | Exception]
        try:
            outcomes = await self._run([question.asked for question in batch])
        except Unavailable as error:
            outcomes = [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - it goes to whoever it belongs to
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._carry_out(batch[:middle])
                await self._carry_out(batch[middle:])
                return
            outcomes = [error]
        for question, outcome in zip(batch, outcomes, strict=True):
            if question.outcome.done():
                continue
            if isinstance(outcome, Exception):
                question.outcome.set_exception(outcome)
            else:
                question.outcome.set_result(outcome)
