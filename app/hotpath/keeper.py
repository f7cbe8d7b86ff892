"""`Keeper`: keeps one connection to one server. It dials, watches, and dials again, for ever.

After a loss it dials at once, then with pauses that grow and are never the same in two processes. A
connection on which nothing is said is asked now and then whether it lives. If the process dies here, the
server sees a closed connection.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from app.hotpath.connection import Connection

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 0.5
"""With the time that one attempt may take: how long after a fault a connection is back at the latest."""
STABLE_S: Final = 1.0
"""A connection that lived this long was a good one: the next attempt comes at once."""


class Keeper:
    """Dials until `stop`. Tells `connected` of each connection, `failed` (why) of each vain attempt.

    `ask` is called with a connection that said nothing for `heartbeat_s` seconds while nothing was asked.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Connection]],
        *,
        connected: Callable[[Connection], None],
        failed: Callable[[str], None],
        ask: Callable[[Connection], object],
        heartbeat_s: float,
    ) -> None:
        """Prepare; `start` begins."""
        self._dial = dial
        self._connected = connected
        self._failed = failed
        self._ask = ask
        self._heartbeat_s = heartbeat_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to dial."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Dial no more; the connection that is there stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _keep(self) -> None:
        pause_s = 0.0
        while True:
            try:
                connection = await self._dial()
            except Exception as error:  # noqa: BLE001 - nothing ends this loop but `stop`
                self._failed(str(error) or type(error).__name__)
            else:
                connected_at = monotonic()
                self._connected(connection)
                await self._watch(connection)
                if monotonic() - connected_at >= STABLE_S:
                    pause_s = 0.0
            if pause_s:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - jitter
            pause_s = min(max(BACKOFF_FIRST_S, pause_s * 2), BACKOFF_MAX_S)

    async def _watch(self, connection: Connection) -> None:
        """Wait until the connection is lost."""
        while not connection.lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await connection.lost.wait()
            idle_s = monotonic() - connection.heard_at
            if idle_s >= self._heartbeat_s and not connection.sent and not connection.is_ended:
                self._ask(connection)
