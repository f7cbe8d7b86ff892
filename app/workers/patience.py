"""`patiently`: wait for a server as long as it takes, and no longer than this process runs.

It holds no state; if the process dies here, nothing was begun.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from temporalio.service import RPCError

from app.domain.errors import Unavailable
from app.observability.logging import logger

PAUSE_S: Final = 1.0

T = TypeVar("T")

log = logger("worker")


async def patiently(ask: Callable[[], Awaitable[T]], stop: asyncio.Event, *, away: str) -> T | None:
    """What a server answers, however late; None when stopped meanwhile. `away` is said once if it is late."""
    said = False
    while not stop.is_set():
        try:
            return await ask()
        except (Unavailable, RuntimeError, RPCError) as error:
            if not said and not stop.is_set():
                log.warning(away, error=str(error))
                said = True
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait([waiting], timeout=PAUSE_S)
        waiting.cancel()
    return None
