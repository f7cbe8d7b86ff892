"""The relay: publishes the events that wait in PostgreSQL to the Redis streams, in order, shard by shard.

Each shard has one relay at a time, by a lease like those of the readers; all processes share the shards, and
take them over within two seconds, also from one that stands still. What a relay publishes carries the token
of its lease, and a stream that has seen a newer one refuses it. An event is deleted from the outbox only when
its stream has answered. If the process dies between the two, the next owner publishes it again: at least
once, and consumers skip what they have seen by its sequence.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from operator import attrgetter
from typing import Final

from app.consumer.leases import Holding
from app.consumer.patience import Patience, for_ever
from app.contracts.streams import shard_of
from app.domain.errors import Unavailable
from app.infra.postgres.event_outbox import EventOutbox
from app.infra.redis.hints import Listener
from app.infra.redis.streams import EventStreams
from app.infra.tasks import end
from app.observability import tracing
from app.observability.logging import logger

BATCH_SIZE_MAX: Final = 500
PROBE_SIZE_MAX: Final = 20
"""What is tried while Redis refuses."""
POLL_S: Final = 0.5
"""How long an event waits at most when no hint of it comes."""
GATHER_S: Final = 0.01
GATHER_MAX_S: Final = 0.05
"""The pause after a batch, in which the next one gathers: a lone event goes at once, a flow goes together."""
GATHER_EACH_S: Final = 0.0025
"""How much longer it is for each event of the batch, up to the longest."""
REFUSED_S: Final = 0.1
"""The shortest pause after Redis refused something, whatever is hinted at meanwhile."""
LEADER: Final = 0
"""Whoever has this shard does what is to be done once for everybody."""
CHORES_END_S: Final = 5.0
_TRACEPARENT: Final = attrgetter("traceparent")

log = logger("relay")


def lease_group(shards: int) -> str:
    """The name under which the relay's shards are leased.

    Relays that disagree about how many there are share nothing: then each side publishes everything.
    """
    return f"relay/{shards}"


class Relay:
    """Publishes the events of its shards; `chores` are what the owner of shard 0 does for everybody."""

    def __init__(
        self,
        open_outbox: Callable[[], AbstractAsyncContextManager[EventOutbox]],
        streams: EventStreams,
        hints: Listener,
        holding: Holding,
        *chores: Callable[[Patience], Awaitable[None]],
    ) -> None:
        """Take the events of the shards in `holding` to the streams, at once when a hint comes."""
        self._open_outbox = open_outbox
        self._streams = streams
        self._hints = hints
        self._holding = holding
        self._chores = chores
        self._leading: list[asyncio.Task[None]] | None = None
        self._redis = Patience("publishing")
        self._is_refused = False
        self._resting: dict[int, float] = {}

    async def run(self, patience: Patience) -> None:
        """Publish until something fails. Raises Unavailable when PostgreSQL goes away."""
        async with self._open_outbox() as outbox:
            patience.well()
            watching = asyncio.create_task(self._watch())
            try:
                while True:
                    tokens = self._holding.tokens
                    await self._lead(is_leader=LEADER in tokens)
                    if not tokens or not await self._publish(outbox, tokens):
                        await self._hints.wait(POLL_S)
            finally:
                await end((watching,), within_s=CHORES_END_S)
                await self._lead(is_leader=False)

    async def _watch(self) -> None:
        """Have it looked at at once when shards come or go."""
        while True:
            await self._holding.changed.wait()
            self._holding.changed.clear()
            self._hints.wake()

    async def _lead(self, *, is_leader: bool) -> None:
        """Begin the chores, or end them."""
        if is_leader and self._leading is None:
            log.info("leading")
            self._leading = [asyncio.create_task(for_ever("chores", chore)) for chore in self._chores]
        elif not is_leader and self._leading is not None:
            leading, self._leading = self._leading, None
            await end(leading, within_s=CHORES_END_S)
            log.info("not_leading")

    async def _publish(self, outbox: EventOutbox, tokens: Mapping[int, int]) -> bool:
        """Publish a batch, and pause; whether there is likely more without a hint."""
        self._holding.is_busy = True
        try:
            size, refused = await self._batch(outbox, tokens)
        except Unavailable as error:
            if error.service != "redis":
                raise
            self._is_refused = True
            delay_s = self._redis.delay_s(error)
            await asyncio.sleep(REFUSED_S)
            await self._hints.wait(max(0.0, delay_s - REFUSED_S))  # a hint comes when Redis is back, too
            return True
        finally:
            self._holding.is_busy = False
            self._holding.batches += 1
        if refused:
            await asyncio.sleep(REFUSED_S)
            return True
        if size:
            self._redis.well()
            self._is_refused = False
            if size >= PROBE_SIZE_MAX:
                is_full = size >= BATCH_SIZE_MAX
                await asyncio.sleep(0 if is_full else min(GATHER_MAX_S, GATHER_EACH_S * size))
                return True
            await asyncio.sleep(max(GATHER_S, min(GATHER_MAX_S, GATHER_EACH_S * size)))
        return bool(self._resting)

    async def _batch(self, outbox: EventOutbox, tokens: Mapping[int, int]) -> tuple[int, set[int]]:
        """The oldest events of the shards that do not rest: how many were published, what shards refused."""
        now = time.monotonic()
        self._resting = {s: until for s, until in self._resting.items() if s in tokens and until > now}
        shards = tokens.keys() - self._resting.keys()
        if not shards:
            return 0, set(tokens)
        size_max = PROBE_SIZE_MAX if self._is_refused else BATCH_SIZE_MAX
        batch = await outbox.waiting(size_max, shards=shards, of=self._streams.shards)
        if not batch.events:
            return 0, set()
        envelopes = [event.envelope for event in batch.events]
        with tracing.of_many("publish events", "producer", envelopes, _TRACEPARENT):
            answers = await self._streams.publish(envelopes, tokens)
        published = [event for event, done in zip(batch.events, answers, strict=True) if done]
        if published:
            await outbox.published(published)
        subjects = [e.envelope.subject for e, done in zip(batch.events, answers, strict=True) if not done]
        refused = {shard_of(subject, self._streams.shards) for subject in subjects}
        for shard in refused & self._streams.fenced_off.keys():
            token, since = self._streams.fenced_off[shard]
            if self._holding.is_confirmed(shard, token, after=since):
                await self._streams.outgrow(shard, token)
        if refused:
            until = now + self._redis.delay_s(Unavailable("redis", "it refuses some streams"))
            self._resting |= dict.fromkeys(refused, until)
        return len(published), refused
