"""`Parts`: what runs side by side in this process, whether each still runs, and how all are ended.

A part runs until the process stops; one that ends by itself is a defect, and the process ends with it, so
that a supervisor starts it anew. If the process dies here, all parts die with it, as they may at any time.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, Final

from app.infra.tasks import end
from app.observability.logging import logger

EXIT_FAILED: Final = 1

log = logger("consumer")


class Parts:
    """Named tasks."""

    def __init__(self) -> None:
        """Start with none."""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as the part `name`."""
        task = self._tasks[name] = asyncio.create_task(work)
        return task

    async def runs(self, name: str) -> bool:
        """Whether a part was started and has not ended."""
        return name in self._tasks and not self._tasks[name].done()

    async def until(self, stop: asyncio.Event) -> bool:
        """Wait until `stop` or until a part ends by itself; whether all still run."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        well = True
        for name, task in self._tasks.items():
            if task.done():
                error = asyncio.CancelledError() if task.cancelled() else task.exception()
                if error is None and stop.is_set():  # it saw the stop before we did
                    continue
                log.error("part_ended", part=name, exc_info=error)
                well = False
        return well

    async def end(self, within_s: float) -> bool:
        """Cancel all, and wait at most so many seconds; whether all have ended."""
        stuck = await end(self._tasks.values(), within_s=within_s)
        if stuck:
            names = sorted(name for name, task in self._tasks.items() if task in stuck)
            log.error("parts_do_not_end", parts=names)
        return not stuck


async def exit_anyway(stop: asyncio.Event, after_s: float) -> None:
    """From `stop` on, give the process so many seconds; then end it with 1, whatever it waits for.

    A thread sees to it: closing things, and the event loop itself, could wait without an end.
    """
    await stop.wait()
    timer = threading.Timer(after_s, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    log.error("stopped_by_force")
    sys.stdout.flush()
    os._exit(EXIT_FAILED)
