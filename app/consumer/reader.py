"""The reader: takes entries from all shards as one consumer of a group, and acknowledges after the effect.

What it reads is pending until then; what another consumer left pending is claimed after ten seconds, so two
may come to hold the same entry, which the effect does not mind. A group that is gone (Redis was emptied, or
holds something else under a stream's name) is made again from the beginning, and the store is compared with
the marks. On SIGTERM it finishes what it holds
and hands the rest back by leaving it pending. If the process dies anywhere in here, others claim it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from app.consumer.effect import Delivery, Effect
from app.consumer.holds import Holds
from app.consumer.patience import Patience
from app.contracts.streams import Envelope
from app.domain.errors import Unavailable
from app.infra.redis.streams import ConsumerGroup, Entry, GroupGoneError
from app.observability.logging import logger

ENTRIES_MAX: Final = 200
"""Entries taken from a shard at once."""
BLOCK_S: Final = 2.0
CLAIM_IDLE_S: Final = 10.0
CLAIM_INTERVAL_S: Final = 5.0
GATHER_S: Final = 0.1
"""The pause after a small batch, in which the next one gathers: every batch costs a commit."""

_envelopes: Final = msgspec.json.Decoder(Envelope)

log = logger("reader")


class Reader:
    """Reads until told to stop."""

    def __init__(
        self,
        group: ConsumerGroup,
        effect: Effect,
        inbox: asyncio.Queue[Delivery],
        on_loss: Callable[[], None],
    ) -> None:
        """Apply what `group` delivers, and what no stream tells of and is put into `inbox`, by `effect`.

        `on_loss` is called when Redis has lost its streams.
        """
        self._group = group
        self._effect = effect
        self._inbox = inbox
        self._on_loss = on_loss
        self._holds = Holds()
        self._store = Patience("applying")
        self._claim_at = 0.0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish what is held and return from `run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Read and apply until `stop`."""
        redis = Patience("reading")
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                await self._work(self._waiting())
                try:
                    entries = await self._next(stopped)
                    redis.well()
                except GroupGoneError:
                    await self._create(redis)
                    continue
                except Unavailable as error:
                    await self._pause(redis.delay_s(error))
                    continue
                await self._work(self._deliveries(entries))
                if 0 < len(entries) < ENTRIES_MAX:
                    await self._pause(GATHER_S)
            await self._hand_back()
        finally:
            stopped.cancel()

    async def _next(self, stopped: asyncio.Task[bool]) -> list[Entry]:
        """New entries, or claimed ones when it is time; none when told to stop."""
        if self._claim_at <= time.monotonic():
            self._claim_at = time.monotonic() + CLAIM_INTERVAL_S
            claimed = await self._group.claim(idle_s=CLAIM_IDLE_S, count=ENTRIES_MAX)
            if claimed:
                return claimed
        if self._holds.is_full:
            await self._pause(BLOCK_S)
            return []
        reading = asyncio.create_task(self._group.read(count=ENTRIES_MAX, block_s=BLOCK_S))
        try:
            await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
            # What was read in the very moment of cancelling is pending, and handed back or claimed.
            return reading.result() if reading.done() else []
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _waiting(self) -> list[Delivery]:
        """What does not come from the streams: held subjects that are due, and the inbox."""
        waiting = self._holds.due()
        while not self._inbox.empty():
            delivery = self._inbox.get_nowait()
            if not self._holds.takes(delivery):
                waiting.append(delivery)
        return waiting

    def _deliveries(self, entries: Iterable[Entry]) -> list[Delivery]:
        """Entries by subject, without those of subjects that are held back."""
        deliveries: dict[str, Delivery] = {}
        nonsense = Delivery("")
        for entry in entries:
            try:
                event = _envelopes.decode(entry.body)
            except msgspec.DecodeError as error:
                # Every event is in PostgreSQL, and what it told of is found there when marks are compared.
                where = f"{entry.shard}/{entry.id.decode()}"
                log.error("not_an_event", entry=where, error=str(error))  # noqa: TRY400 - no trace is needed
                nonsense.entries.append(entry)
                continue
            deliveries.setdefault(event.subject, Delivery(event.subject)).add(event, entry)
        found = [delivery for delivery in deliveries.values() if not self._holds.takes(delivery)]
        return [*found, nonsense] if nonsense.entries else found

    async def _work(self, deliveries: list[Delivery]) -> None:
        """Apply and acknowledge, waiting for PostgreSQL as long as it takes, but not when told to stop."""
        while deliveries:
            try:
                await self._apply(deliveries)
                self._store.well()
                return
            except Unavailable as error:
                if self._stopping.is_set():
                    return
                await self._pause(self._store.delay_s(error))

    async def _apply(self, deliveries: list[Delivery]) -> None:
        """Apply all in one transaction; if that fails for good, one by one, to hold back only what fails."""
        try:
            real = [delivery for delivery in deliveries if delivery.subject]
            if real:
                await self._effect.apply(real)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises; it is said by the hold
            if len(deliveries) == 1:
                self._holds.hold(deliveries[0], error)
                return
            for delivery in deliveries:
                await self._apply([delivery])
            return
        for delivery in deliveries:
            self._holds.release(delivery)
        try:
            await self._group.acknowledge(entry for delivery in deliveries for entry in delivery.entries)
        except (Unavailable, GroupGoneError) as error:
            log.debug("not_acknowledged", error=str(error))  # claimed again later, and skipped

    async def _create(self, redis: Patience) -> None:
        try:
            if await self._group.create():
                log.info("streams_created")
                self._on_loss()
        except Unavailable as error:
            await self._pause(redis.delay_s(error))

    async def _hand_back(self) -> None:
        """Finish what was read but not applied, and have this consumer forgotten if it holds nothing."""
        try:
            await self._work(self._deliveries(await self._group.pending(count=ENTRIES_MAX)))
            await self._group.leave()
        except (Unavailable, GroupGoneError) as error:
            log.debug("not_handed_back", error=str(error))  # others claim it

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not when told to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
