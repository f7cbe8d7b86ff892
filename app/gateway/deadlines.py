"""Deadlines that hold: whoever asks is answered in time, even where what was asked cannot be stopped at once.

Cancelling a statement talks to the server once more, which takes as long as a server that is frozen likes.
So the work goes on by itself until its own, longer timeout ends it; its outcome is then nobody's business,
and everything asked this way can be asked again.

What every request waits for is bounded by a `Patience`: one timer for all of them.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar

from app.domain.errors import Unavailable

T = TypeVar("T")


async def within(deadline_s: float, work: Coroutine[Any, Any, T] | asyncio.Task[T]) -> T:
    """What `work` gives, or raises. Raises Unavailable (`postgres`) after `deadline_s` seconds."""
    task = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
    done, _ = await asyncio.wait((task,), timeout=deadline_s)
    if not done:
        task.add_done_callback(_forget)
        raise Unavailable("postgres", f"no answer within {deadline_s:g} s")
    return task.result()


def _forget(task: "asyncio.Task[Any]") -> None:
    """Look at an outcome nobody waits for, so that it is not reported as never looked at."""
    if not task.cancelled():
        task.exception()


class Patience:
    """Does what `asyncio.timeout` does, for many who all wait equally long, at a quarter of its cost.

    with patience.hold():
        await …                 # TimeoutError after `limit_s` seconds
    """

    def __init__(self, limit_s: float) -> None:
        """Let each wait for `limit_s` seconds."""
        self.limit_s: Final = limit_s
        self._holds: deque[_Hold] = deque()  # in the order in which they end
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def hold(self) -> "_Hold":
        """Bound what the current task waits for within the block."""
        return _Hold(self)

    def _begin(self, hold: "_Hold") -> float:
        """When it ends."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # that one's timer never rings again
            self._loop, self._timer = loop, None
            self._holds.clear()
        due_at = loop.time() + self.limit_s
        self._holds.append(hold)
        if self._timer is None:
            self._timer = loop.call_at(due_at, self._ring, loop)
        return due_at

    def _end(self) -> None:
        """Forget those that are over."""
        while self._holds and self._holds[0].task is None:
            self._holds.popleft()

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what is due; ring again for the next."""
        now = loop.time()
        self._timer = None
        while self._holds:
            hold = self._holds[0]
            if hold.task is not None and hold.due_at > now:
                self._timer = loop.call_at(hold.due_at, self._ring, loop)
                return
            self._holds.popleft()
            if hold.task is not None:
                hold.is_due = True
                hold.task.cancel()


class _Hold:
    """One wait. `task` is None when it is over."""

    __slots__ = ("_cancelling", "_patience", "due_at", "is_due", "task")

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.is_due = False
        self.task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Self:
        task = self.task = asyncio.current_task()
        assert task is not None, "a task waits"
        self._cancelling = task.cancelling()
        self.due_at = self._patience._begin(self)  # noqa: SLF001 - one class in two
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        task, self.task = self.task, None
        self._patience._end()  # noqa: SLF001 - one class in two
        if not self.is_due or task is None:
            return
        # As in asyncio.Timeout: where somebody else cancelled the task as well, that goes on.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
