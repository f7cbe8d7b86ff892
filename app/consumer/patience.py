"""`Patience`: how this process waits for a server that is away: longer and longer, and with one line of log.

An outage is said once when it begins, once when its cause changes and once when it ends, not per attempt. It
holds nothing; if the process dies here, the next one waits anew.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from app.domain.errors import Unavailable
from app.observability.logging import logger

FIRST_S: Final = 0.1
LONGEST_S: Final = 2.0

log = logger("consumer")


class Patience:
    """One activity's outages. `part` names the activity in the log."""

    def __init__(self, part: str, *, longest_s: float = LONGEST_S) -> None:
        """Wait at most `longest_s` between two attempts."""
        self._part = part
        self._longest_s = longest_s
        self._attempts = 0
        self._said: str | None = None

    def delay_s(self, error: Exception) -> float:
        """How long to wait after this failure, in seconds, jittered."""
        said = repr(error)
        if said != self._said:
            if isinstance(error, Unavailable):
                log.warning("waiting", part=self._part, service=error.service, error=str(error))
            else:  # a defect of ours: it is tried again, and it is loud
                log.error("failing", part=self._part, error=said, exc_info=error)
            self._said = said
        longest: float = min(self._longest_s, FIRST_S * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 30)
        return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter

    def well(self) -> None:
        """It worked."""
        if self._said is not None:
            log.info("going_on", part=self._part)
        self._attempts = 0
        self._said = None


async def for_ever(
    part: str, work: Callable[[Patience], Awaitable[None]], stop: asyncio.Event | None = None
) -> None:
    """Run `work` again and again, whatever it raises, until cancelled. It calls `well` when it is.

    `stop` ends it where the cancellation got lost in `work`.
    """
    patience = Patience(part)
    while stop is None or not stop.is_set():
        try:
            await work(patience)
        except Exception as error:  # noqa: BLE001 - said aloud by `delay_s`
            await asyncio.sleep(patience.delay_s(error))
