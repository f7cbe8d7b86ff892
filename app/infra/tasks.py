"""`end`: cancelling tasks until they are done, and not for ever.

One cancellation is not enough: `asyncio.wait_for`, which the libraries use, loses one that comes in the very
moment of the answer, and the task goes on. It holds nothing; if the process dies here, nothing is left over.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN_S: Final = 0.5
"""After how long a task that goes on is cancelled again. Whoever closes something meanwhile has this long."""


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
