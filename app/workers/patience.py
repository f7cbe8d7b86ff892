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
ANSWER_S: Final = 15.0
"""Whoever has not answered by then is asked again: a server may take a connection and say nothing."""

T = TypeVar("T")

log = logger("worker")


async def patiently(ask: Callable[[], Awaitable[T]], stop: asyncio.Event, *, away: str = "") -> T | None:
    """What a server answers, however late; None when stopped meanwhile. `away` is said once if it is late."""
    said = not away
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            asking = asyncio.ensure_future(ask())
            try:
                await asyncio.wait([asking, stopping], timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    return asking.result()
                why = f"no answer within {ANSWER_S:g} s"
            except (Unavailable, RuntimeError, RPCError) as error:
                why = str(error)
            finally:
                asking.cancel()
            if not said and not stop.is_set():
                log.warning(away, error=why)
                said = True
            await asyncio.wait([stopping], timeout=PAUSE_S)
        return None
    finally:
        stopping.cancel()
