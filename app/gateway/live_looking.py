"""`Looking`: what the log says of looks into PostgreSQL for those who follow.

An outage is said once when looks begin to fail and once when they go on, however many follow and however
often it is tried. A defect of ours is said each time. If the process dies here, nothing was begun.
"""

from typing import Final, Literal

from app.domain.errors import Unavailable
from app.observability.logging import logger

PAUSE_S: Final = 1.0
"""How long whoever failed waits before the next look."""

log = logger("live")


class Looking:
    """The looks for those who follow one order, or all events."""

    def __init__(self, of: Literal["order", "all"]) -> None:
        """They go well so far."""
        self._of = of
        self._is_away = False

    def failed(self, error: Exception) -> None:
        """A look found out nothing."""
        if not isinstance(error, Unavailable):
            log.error("catching_up_failed", of=self._of, exc_info=error)
        elif not self._is_away:
            self._is_away = True
            log.warning("live_events_wait", of=self._of, error=str(error))

    def well(self) -> None:
        """A look found out what there is."""
        if self._is_away:
            self._is_away = False
            log.info("live_events_go_on", of=self._of)
