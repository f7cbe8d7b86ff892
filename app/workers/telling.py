"""`Telling`: has Temporal told what a table in PostgreSQL holds, many calls at a time, for ever.

A call that does not get through is given back. If the process dies after Temporal's answer and before the row
is deleted, Temporal is told twice; whoever gives `Telling` its calls sees to it that this changes nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from temporalio.service import RPCError, RPCStatusCode

from app.domain.errors import Unavailable
from app.observability.logging import Rarely, logger

BATCH_MAX: Final = 64
LEASE_S: Final = 15.0
POLL_S: Final = 1.0
PAUSE_S: Final = 1.0
REFUSED_PAUSE_S: Final = 15.0
"""What Temporal refuses comes back later than others: else a batch of it would go before them each time."""

log = logger("telling")


class Row(Protocol):
    """Something to be told."""

    @property
    def id(self) -> Any:  # noqa: ANN401 - whatever its table knows it by
        """The row's."""
        ...


C = TypeVar("C", bound=Row)
C_co = TypeVar("C_co", covariant=True)


class Outbox(Protocol[C_co]):
    """The table. Every method raises Unavailable."""

    async def claim(self, limit: int, lease_s: float) -> Sequence[C_co]:
        """The oldest rows that nobody works on; ours for `lease_s` seconds."""
        ...

    async def done(self, ids: list[Any]) -> None:
        """Temporal has answered these."""
        ...

    async def give_back(self, ids: list[Any], pause_s: float) -> None:
        """These did not get through; not before `pause_s` seconds again."""
        ...


class Hint(Protocol):
    """Wakes a waiter early; it may never come."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a hint, at most `timeout_s` seconds."""
        ...


class Telling(Generic[C]):
    """Runs until it is cancelled; two of them at once share the work."""

    def __init__(
        self,
        what: str,
        outbox: Outbox[C],
        call: Callable[[C], Awaitable[None]],
        hint: Hint,
        *,
        batch_max: int = BATCH_MAX,
        rests: bool = False,
    ) -> None:
        """Claim rows of `outbox`, tell each by `call`, look at once when `hint` says so.

        `what` stands in the log. `call` raises RPCError when it did not get through. Whoever `rests` does
        nothing for as long as the last batch took: that is for others whom Temporal hears, too.
        """
        self._what = what
        self._outbox = outbox
        self._call = call
        self._hint = hint
        self._batch_max = batch_max
        self._rests = rests
        self._is_away = False
        self._refused = Rarely()
        """Batches in which Temporal refused something."""

    async def run(self) -> None:
        """Tell Temporal everything, for ever."""
        while True:
            began = time.monotonic()
            try:
                told = await self.tell()
                self._note_away(away=False)
            except (Unavailable, RPCError) as error:
                self._note_away(away=True, error=str(error))
                await self._hint.wait(POLL_S)
                continue
            if told and self._rests:
                await asyncio.sleep(time.monotonic() - began)
            if told < self._batch_max:
                await self._hint.wait(POLL_S)

    async def tell(self) -> int:
        """Claim one batch and tell Temporal; how many calls it was. Raises RPCError when none got through."""
        calls = await self._outbox.claim(self._batch_max, LEASE_S)
        if not calls:
            return 0
        outcomes = await asyncio.gather(*(self._call(call) for call in calls), return_exceptions=True)
        done = [call.id for call, outcome in zip(calls, outcomes, strict=True) if outcome is None]
        failed = [(call, o) for call, o in zip(calls, outcomes, strict=True) if o is not None]
        if done:
            await self._outbox.done(done)
        if failed:
            await self._give_back(failed, any_done=bool(done))
        return len(calls)

    async def _give_back(self, failed: Sequence[tuple[C, BaseException]], *, any_done: bool) -> None:
        """Have these told again later; those that Temporal refuses much later, so that others are claimed."""
        refused = [(call, error) for call, error in failed if _is_refused(error)]
        if refused:
            await self._outbox.give_back([call.id for call, _ in refused], REFUSED_PAUSE_S)
            if times := self._refused.one_more():
                call, error = refused[0]
                log.warning("workflow_not_told", what=self._what, row=call.id, error=str(error), times=times)
        missed = [(call, error) for call, error in failed if not _is_refused(error)]
        if missed:
            await self._outbox.give_back([call.id for call, _ in missed], PAUSE_S)
            for _, error in missed:
                if not isinstance(error, RPCError):
                    raise error
            if not any_done:
                raise missed[0][1]

    def _note_away(self, *, away: bool, error: str = "") -> None:
        """One line when Temporal or PostgreSQL goes away, one when it is back."""
        if away != self._is_away:
            self._is_away = away
            if away:
                log.warning("workflows_wait_to_be_told", what=self._what, error=error)
            else:
                log.info("workflows_are_told_again", what=self._what)


def _is_refused(error: BaseException) -> bool:
    """Whether it is this row that Temporal does not take, and not Temporal that is away."""
    return isinstance(error, RPCError) and error.status is RPCStatusCode.INVALID_ARGUMENT
