"""Deadlines that hold: whoever asks is answered in time, even where what was asked cannot be stopped at once.

Cancelling a statement talks to the server once more, which takes as long as a server that is frozen likes.
So the work goes on by itself until its own, longer timeout ends it; its outcome is then nobody's business,
and everything asked this way can be asked again.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

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
