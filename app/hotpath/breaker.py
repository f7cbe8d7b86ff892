"""`Breaker`: sees a server that does not answer, and asks it until it does, so that callers need not.

It opens after TIMEOUTS_MAX commands in a row without an answer in time. Callers are refused from then on, and
the breaker asks by itself; the first answer in time closes it. It knows nothing that outlives the process.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from app.hotpath.connection import Connection
from app.hotpath.errors import HotpathError

TIMEOUTS_MAX: Final = 3
PROBE_PAUSE_S: Final = 0.2


class Breaker:
    """Counts commands that timed out; `opened` (why) and `closed` are called when it opens and closes.

    `ask` sends a command that the server answers at once, with the client's deadline.
    """

    def __init__(
        self,
        *,
        ask: Callable[[Connection], "asyncio.Future[Any]"],
        opened: Callable[[str], None],
        closed: Callable[[], None],
    ) -> None:
        """Begin closed."""
        self.timeouts = 0
        self._ask = ask
        self._opened = opened
        self._closed = closed
        self._probing: asyncio.Task[None] | None = None

    def expired(self, count: int, connection: Connection) -> None:
        """Count commands that this connection did not answer in time."""
        self.timeouts += count
        if self.timeouts >= TIMEOUTS_MAX and self._probing is None and not connection.is_ended:
            self._probing = asyncio.get_running_loop().create_task(self._probe(connection))
            self._opened("the server does not answer in time")

    def reset(self) -> None:
        """There is a new connection, or none; whatever is known of the old one counts no more."""
        self.timeouts = 0
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None

    async def stop(self) -> None:
        """Ask no more."""
        probing = self._probing
        self.reset()
        if probing is not None:
            await asyncio.wait((probing,))

    async def _probe(self, connection: Connection) -> None:
        while True:
            try:
                await self._ask(connection)
                break
            except HotpathError:
                await asyncio.sleep(PROBE_PAUSE_S * random.uniform(0.5, 1))  # noqa: S311 - jitter
        self._probing = None
        self.timeouts = 0
        if not connection.is_ended:
            self._closed()
