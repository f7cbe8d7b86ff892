"""`end`: cancelling tasks until they are done, and not for ever. `running`: work beside a block of code.

One cancellation is not enough: `asyncio.wait_for`, which the libraries use, loses one that comes in the very
moment of the answer, and the task goes on. It holds nothing; if the process dies here, nothing is left over.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

AGAIN_S: Final = 0.5
"""After how long a task that goes on is cancelled again. Whoever closes something meanwhile has this long."""
RUNNING_END_S: Final = 2.0


async def end(tasks: Iterable[asyncio.Task[Any]], *, within_s: float) -> set[asyncio.Task[Any]]:
    """Cancel tasks again and again, at most for `within_s` seconds; those that go on all the same.

    What the others raised is dropped.
    """
    given = set(tasks)
    running = {task for task in given if not task.done()}
    clock = asyncio.get_running_loop().time
    until = clock() + within_s
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=max(0.0, min(AGAIN_S, until - clock())))
        if clock() >= until:
            break
    for task in given - running:
        if not task.cancelled():
            task.exception()  # else asyncio complains that nobody asked for it
    return running


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do these beside what is in the block, and end them with it, within a few seconds."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        await end(tasks, within_s=RUNNING_END_S)
