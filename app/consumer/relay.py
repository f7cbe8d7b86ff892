"""The relay: publishes the events that wait in PostgreSQL to the Redis streams, in order.

One process leads, by a lock in PostgreSQL; the others stand by and take over within two seconds, also from
one that stands still. An event is deleted from the outbox only when its stream has answered. If the process
dies between the two, the next leader publishes it again: at least once, and consumers skip what they have
seen by its sequence.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from app.consumer.patience import Patience, for_ever
from app.domain.errors import Unavailable
from app.infra.postgres.event_outbox import EventOutbox
from app.infra.redis.hints import Listener
from app.infra.redis.streams import EventStreams
from app.infra.tasks import end
from app.observability import metrics
from app.observability.logging import logger

BATCH_SIZE_MAX: Final = 500
POLL_S: Final = 0.5
"""How long an event waits at most when no hint of it comes."""
GATHER_S: Final = 0.05
"""The pause after a batch, in which the next one gathers: a lone event goes at once, a flow goes together."""
STANDBY_S: Final = 0.5
CHORES_END_S: Final = 5.0

log = logger("relay")


class Relay:
    """Publishes while it leads; `chores` are what else the leader does for everybody."""

    def __init__(
        self,
        open_outbox: Callable[[], AbstractAsyncContextManager[EventOutbox]],
        streams: EventStreams,
        hints: Listener,
        *chores: Callable[[Patience], Awaitable[None]],
    ) -> None:
        """Take from the outbox to the streams, at once when a hint comes."""
        self._open_outbox = open_outbox
        self._streams = streams
        self._hints = hints
        self._chores = chores

    async def run(self, patience: Patience) -> None:
        """Stand by, then lead, until something fails. Raises Unavailable when PostgreSQL goes away."""
        async with self._open_outbox() as outbox:
            while not await outbox.lead():
                patience.well()
                await asyncio.sleep(STANDBY_S * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            patience.well()
            log.info("leading")
            chores = [asyncio.create_task(for_ever("chores", chore)) for chore in self._chores]
            chores.append(asyncio.create_task(outbox.stay()))
            try:
                await self._publish(outbox)
            finally:
                metrics.OUTBOX_AGE.set(0)  # whoever leads next knows it
                await end(chores, within_s=CHORES_END_S)
                log.info("not_leading")

    async def _publish(self, outbox: EventOutbox) -> None:
        redis = Patience("publishing")
        while True:
            batch = await outbox.waiting(BATCH_SIZE_MAX)
            metrics.OUTBOX_AGE.set(batch.age_s)
            if not batch.events:
                await self._hints.wait(POLL_S)
                continue
            try:
                answers = await self._streams.publish([event.envelope for event in batch.events])
            except Unavailable as error:
                await self._hints.wait(redis.delay_s(error))  # a hint comes when Redis is back, too
                continue
            published = [event for event, done in zip(batch.events, answers, strict=True) if done]
            if published:
                await outbox.published(published)
            if len(published) < len(batch.events):
                await asyncio.sleep(redis.delay_s(Unavailable("redis", "it refuses some streams")))
                continue
            redis.well()
            if len(published) < BATCH_SIZE_MAX:
                await asyncio.sleep(GATHER_S)
