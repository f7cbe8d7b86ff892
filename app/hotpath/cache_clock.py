"""`ServerClock`: what the server's clock shows, as two bounds, so that an age can be told from afar.

A command may wait in a network for as long as it likes and still arrive: "keep this for a second" would then
begin when it arrives. So lifetimes are points of the server's time. Its clock is asked now and then; between
two answers it is reckoned from our monotonic one. The bounds hold however slow the network is; a clock that
is set is noticed within `AGE_MAX_S`. If the process dies here, the next one asks again.
"""

import asyncio
from time import monotonic
from typing import Any, Final

from app.hotpath.client import Client
from app.hotpath.errors import Unreachable

AGE_MAX_S: Final = 10.0
"""An answer older than this says nothing any more."""
REFRESH_S: Final = 3.0
"""An answer older than this has the clock asked again, in the background."""
DRIFT: Final = 0.001
"""Seconds by which two clocks may part in a second; far more than they do."""

_MICROSECONDS: Final = 1_000_000


class ServerClock:
    """The clock of the server that `client` is connected to. Times of its are microseconds since 1970."""

    def __init__(self, client: Client) -> None:
        """Know nothing; `know` asks."""
        self._client = client
        self._asked_at = 0.0
        self._heard_at = 0.0
        self._shown_us: int | None = None
        self._life = 0
        self._asking: asyncio.Future[Any] | None = None
        client.when_lost.append(self._forget)

    def is_known(self, at: float) -> bool:
        """Whether the bounds can be told; asks again in the background before they no longer can."""
        age_s = at - self._asked_at
        if self._shown_us is None or age_s > AGE_MAX_S:
            return False
        if age_s > REFRESH_S and self._asking is None:
            self._ask()
        return True

    async def know(self) -> None:
        """Have the bounds known, by a round trip where they are not. Raises HotpathError."""
        if not self.is_known(monotonic()):
            asking = self._asking or self._ask()
            await asyncio.wait((asking,))  # whoever is cancelled here does not cancel it for the others
            asking.result()
            if self._shown_us is None:
                raise Unreachable("the connection broke while the server's clock was asked")

    def latest(self, at: float) -> float:
        """What it shows at most at our time `at` (monotonic). Only while `is_known`."""
        assert self._shown_us is not None, "know() was awaited"
        ago_s = at - self._asked_at
        return self._shown_us + (ago_s + abs(ago_s) * DRIFT) * _MICROSECONDS

    def earliest(self, at: float) -> float:
        """What it shows at least at our time `at` (monotonic). Only while `is_known`."""
        assert self._shown_us is not None, "know() was awaited"
        ago_s = at - self._heard_at
        return self._shown_us + (ago_s - abs(ago_s) * DRIFT) * _MICROSECONDS

    def learn(self, shown_us: int, *, asked_at: float, heard_at: float) -> None:
        """Take an answer that came with something else, unless the one that is here is the sharper one."""
        if self._shown_us is not None:
            age_s = heard_at - self._heard_at
            blur_s = self._heard_at - self._asked_at + 2 * DRIFT * age_s
            if age_s <= REFRESH_S and blur_s < heard_at - asked_at:
                return
        self._shown_us, self._asked_at, self._heard_at = shown_us, asked_at, heard_at

    def _ask(self) -> "asyncio.Future[Any]":
        asked_at, life = monotonic(), self._life
        asking = self._asking = self._client.execute("TIME")

        def heard(answer: "asyncio.Future[Any]") -> None:
            if self._asking is answer:
                self._asking = None
            if answer.cancelled() or answer.exception() is not None or life != self._life:
                return
            seconds, microseconds = answer.result()
            shown_us = int(seconds) * _MICROSECONDS + int(microseconds)
            self.learn(shown_us, asked_at=asked_at, heard_at=monotonic())

        asking.add_done_callback(heard)
        return asking

    def _forget(self) -> None:
        """The next connection may lead to another server."""
        self._life += 1
        self._shown_us = None
