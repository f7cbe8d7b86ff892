"""Setting aside what cannot be handled, and trying it again.

A subject's events are taken one by one up to the one that fails. That one becomes a dead letter; what follows
it for the subject waits in PostgreSQL, and all other subjects go on. It is tried again a few times by itself,
less and less often, then when somebody says so, or, of an unknown type, when a process comes that knows it.
Anybody of the group may try: the hold lets nobody else at the subject. If the process dies here, another
tries later.
"""

import asyncio
import random
import traceback
from collections.abc import Mapping
from typing import Final

from app.consumer.effect import Delivery, Effect, UnknownEventError
from app.consumer.patience import Patience
from app.domain.errors import Unavailable
from app.domain.upcasters import VERSIONS
from app.infra.postgres.dead_letters import FAILED, UNKNOWN, DeadLetter, DeadLetters, Failure
from app.infra.postgres.leases import LeaseLostError
from app.observability.logging import logger

ATTEMPTS_MAX: Final = 6
FIRST_S: Final = 1.0
"""The pause after the first attempt; each one after it is twice as long, about a minute in all."""
POLL_S: Final = 1.0
LETTERS_MAX: Final = 50
"""Letters that are tried in one go."""

log = logger("dead_letters")


def failure_of(error: Exception, attempts: int) -> Failure:
    """What is kept of an error, after so many attempts."""
    stack = "".join(traceback.format_exception(error))
    if isinstance(error, UnknownEventError):
        return Failure(UNKNOWN, f"unknown type {error}", stack, None)
    wait_s = FIRST_S * 2 ** (attempts - 1) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
    return Failure(FAILED, repr(error), stack, wait_s if attempts < ATTEMPTS_MAX else None)


class SettingAside:
    """What a group does with a subject whose events fail."""

    def __init__(self, effect: Effect, letters: DeadLetters) -> None:
        """Handle by `effect`, keep failures in `letters`."""
        self._effect = effect
        self._letters = letters

    async def apply(self, delivery: Delivery, tokens: Mapping[int, int] | None = None) -> None:
        """Apply a subject's events one by one; set aside the first that fails, with what follows it.

        Raises Unavailable and LeaseLostError.
        """
        reached = -1
        while reached < delivery.last:
            try:
                reached = (await self._effect.apply([delivery], tokens, events_max=1))[delivery.subject]
            except (Unavailable, LeaseLostError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a handler raises
                await self._set_aside(delivery.subject, error)
                return

    async def _set_aside(self, subject: str, error: Exception) -> None:
        failure = failure_of(error, 1)
        if await self._letters.add(self._effect.group.name, subject, failure):
            group = self._effect.group.name
            log.error("set_aside", group=group, subject=subject, error=failure.error, exc_info=error)

    async def run(self, patience: Patience) -> None:
        """Try again, whenever it is time. Raises Unavailable."""
        group = self._effect.group
        known = (*group.handlers, *VERSIONS.old)
        while True:
            due = await self._letters.due(group.name, known, LETTERS_MAX)
            await self._retry(due)
            patience.well()
            if len(due) < LETTERS_MAX:
                await asyncio.sleep(POLL_S)

    async def _retry(self, letters: list[DeadLetter]) -> None:
        """Try letters together, with what waits behind them; if any fails, one by one."""
        if not letters:
            return
        try:
            await self._effect.apply([Delivery(letter.subject) for letter in letters], letters=letters)
        except Unavailable:
            raise  # their claim runs out
        except Exception as error:  # noqa: BLE001 - whatever a handler raises
            if len(letters) == 1:
                await self._retry_alone(letters[0], error)
                return
            for letter in letters:
                await self._retry([letter])
            return
        for letter in letters:
            log.info("held_no_more", group=letter.consumer_group, subject=letter.subject)

    async def _retry_alone(self, letter: DeadLetter, error: Exception) -> None:
        """Something of the subject fails: the letter's own event again, or one behind it."""
        delivery = Delivery(letter.subject)
        try:
            await self._effect.apply([delivery], letters=[letter], events_max=1)
        except Unavailable:
            raise
        except Exception as again:
            failure = failure_of(again, letter.attempts + 1)
            await self._letters.failed(letter, failure)
            if failure.again_in_s is None or repr(again) != letter.error:
                where = {"group": letter.consumer_group, "subject": letter.subject}
                log.exception("dead_letter", **where, sequence=letter.sequence, error=failure.error)
            return
        log.info("held_no_more", group=letter.consumer_group, subject=letter.subject, then=repr(error))
        await self.apply(delivery)
