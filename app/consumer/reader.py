"""The reader: takes entries from the shards it owns for a group; acknowledges after the effect.

What it reads is pending until then. Whoever takes a shard over first claims everything that is pending there,
whoever was given it; from time to time the owner looks again, for what a former owner was given while it was
already dead. While a full batch is applied the next ones are read. A group that is gone (Redis was emptied,
or holds something else under a stream's name) is made again from the beginning, and the store is compared
with the marks. On SIGTERM it finishes what it is at; the rest is pending. If the process dies in here, the
next owner claims it.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from app.consumer.dead_letters import SettingAside
from app.consumer.effect import Delivery, Effect
from app.consumer.leases import Holding
from app.consumer.patience import Patience
from app.contracts.streams import Envelope
from app.domain.errors import Unavailable
from app.domain.ids import NAME
from app.infra.postgres.leases import LeaseLostError
from app.infra.redis.streams import BEGINNING, ConsumerGroup, Entry, GroupGoneError
from app.infra.tasks import end
from app.observability.logging import Rarely, logger

ENTRIES_MAX: Final = 1_000
"""Entries taken from a shard at once."""
BATCH_BYTES: Final = 8 * 1024 * 1024
"""How large a batch is to be: where events are so large that fewer make that up, fewer are taken."""
FULL: Final = 400
"""Entries of all shards from which on there are likely more: these are read while the batch is applied."""
AHEAD_MAX: Final = 2
"""Batches that are read ahead: one that is there when it is wanted, and one on its way."""
TURN: Final = 100
"""Entries that are decoded in one turn of the loop, while a transaction may wait for its next."""
BLOCK_S: Final = 2.0
CLAIM_INTERVAL_S: Final = 5.0
GATHER_S: Final = 0.1
"""The pause after a small batch, in which the next one gathers: every batch costs a commit."""
SMALL: Final = 200

SEQUENCE_MAX: Final = 2**31 - 1
"""What the log of record can count a subject's events to."""

_envelopes: Final = msgspec.json.Decoder(Envelope)

log = logger("reader")
_junk: Final = Rarely()
"""Entries that are no events: whoever writes one may write a million, and every group reads each."""


class Batch(msgspec.Struct, frozen=True):
    """Entries that were read together, and what they deliver, by subject."""

    entries: Sequence[Entry]
    deliveries: list[Delivery]


_NOTHING: Final = Batch((), [])


async def _batch(entries: Sequence[Entry]) -> Batch:
    """Entries by subject. Lets others go on now and then: meanwhile PostgreSQL may have answered."""
    deliveries: dict[str, Delivery] = {}
    nonsense = Delivery("")
    for number, entry in enumerate(entries, 1):
        if not number % TURN:
            await asyncio.sleep(0)
        try:
            event = _envelopes.decode(entry.body)
            delivery = deliveries.get(event.subject)
            if not 0 < event.sequence <= SEQUENCE_MAX or (delivery is None and not NAME.match(event.subject)):
                raise msgspec.ValidationError("There is no such subject, or sequence")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # Every event is in PostgreSQL, and what it told of is found there when marks are compared.
            if count := _junk.one_more():
                where = f"{entry.shard}/{entry.id.decode()}"
                log.error("not_an_event", entries=count, last=where, error=str(error))  # noqa: TRY400
            nonsense.entries.append(entry)
            continue
        if delivery is None:
            delivery = deliveries[event.subject] = Delivery(event.subject)
        delivery.add(event, entry)
    found = list(deliveries.values())
    return Batch(entries, [*found, nonsense] if nonsense.entries else found)


class Reader:
    """Reads until told to stop."""

    def __init__(
        self,
        group: ConsumerGroup,
        effect: Effect,
        aside: SettingAside,
        holding: Holding,
        inbox: asyncio.Queue[Delivery],
        on_loss: Callable[[], None],
    ) -> None:
        """Apply what `group` delivers, and what no stream tells of and is put into `inbox`, by `effect`.

        Read the shards in `holding`. What fails goes to `aside`. `on_loss` is called when Redis has lost its
        streams.
        """
        self._group = group
        self._effect = effect
        self._aside = aside
        self._holding = holding
        self._inbox = inbox
        self._on_loss = on_loss
        self._store = Patience("applying")
        self._tokens: dict[int, int] = {}
        self._to_claim: dict[int, bytes] = {}
        self._claim_at = math.inf
        self._count = ENTRIES_MAX
        self._ahead: deque[asyncio.Task[Batch]] = deque()
        self._acknowledging: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish what is held and return from `run`."""
        self._stopping.set()
        self._holding.changed.set()

    async def run(self) -> None:
        """Read and apply until `stop`."""
        redis = Patience("reading")
        try:
            while not self._stopping.is_set():
                await self._once(redis)
            await self._acknowledged()
        finally:
            acknowledging = () if self._acknowledging is None else (self._acknowledging,)
            await end((*self._ahead, *acknowledging), within_s=BLOCK_S)  # what was read ahead is pending

    async def _once(self, redis: Patience) -> None:
        """One batch."""
        self._look_at_shards()
        try:
            await self._work(self._from_inbox())
            batch = await self._next()
            redis.well()
            self._look_at_shards()
            self._read_ahead(batch)
            await self._work(await self._ours(batch))
        except GroupGoneError:
            await self._create(redis)
            return
        except Unavailable as error:
            await self._pause(redis.delay_s(error))
            return
        finally:
            self._holding.is_busy = False
            self._holding.batches += 1
        if 0 < len(batch.entries) < SMALL:
            await self._pause(GATHER_S)

    def _look_at_shards(self) -> None:
        """See which shards are owned now; those that are new, or were not looked at for long, are claimed."""
        self._holding.changed.clear()
        held = self._holding.tokens
        new = {shard for shard, token in held.items() if self._tokens.get(shard) != token}
        self._tokens = held
        self._to_claim = {shard: at for shard, at in self._to_claim.items() if shard in held}
        now = time.monotonic()
        if new:  # the last owner may be given something until what it asked for last is over
            self._claim_at = min(self._claim_at, now + BLOCK_S + GATHER_S)
        elif self._claim_at <= now:
            self._claim_at = now + CLAIM_INTERVAL_S
            new = set(held)
        self._to_claim |= dict.fromkeys(new, BEGINNING)

    async def _next(self) -> Batch:
        """What was read ahead, or is pending where it is looked for, or is new; none when shards changed."""
        while self._ahead:
            batch = await self._ahead.popleft()
            if batch.entries:
                return batch
        await self._acknowledged()
        if self._to_claim:
            entries, self._to_claim = await self._group.claim(self._to_claim, idle_s=0, count=self._count)
            if entries or self._to_claim:
                return await _batch(entries)
        waiting = asyncio.create_task(self._holding.changed.wait())
        reading = asyncio.create_task(self._read(BLOCK_S))
        try:
            await asyncio.wait({reading, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            # What is read in the very moment of cancelling is pending, and claimed later.
            self._claim_at = 0.0
            return _NOTHING
        finally:
            for task in (reading, waiting):
                task.cancel()
            await asyncio.gather(reading, waiting, return_exceptions=True)

    async def _read(self, block_s: float) -> Batch:
        if self._tokens:
            entries = await self._group.read(self._tokens, count=self._count, block_s=block_s)
            if entries:
                fitting = BATCH_BYTES * len(entries) // (1 + sum([len(entry.body) for entry in entries]))
                self._count = max(1, min(ENTRIES_MAX, fitting // max(1, len(self._tokens))))
            return await _batch(entries)
        await asyncio.sleep(block_s)
        return _NOTHING

    def _read_ahead(self, batch: Batch) -> None:
        """Have the next batches read while this one is applied, unless there is something to be claimed."""
        if self._to_claim or self._claim_at <= time.monotonic():
            return
        while len(batch.entries) >= FULL and len(self._ahead) < AHEAD_MAX:
            self._ahead.append(asyncio.create_task(self._read(0.0)))

    def _from_inbox(self) -> list[Delivery]:
        """What does not come from the streams."""
        waiting = []
        while not self._inbox.empty():
            waiting.append(self._inbox.get_nowait())
        return waiting

    async def _ours(self, batch: Batch) -> list[Delivery]:
        """What of a batch is of shards that were not lost meanwhile."""
        ours = [entry for entry in batch.entries if entry.shard in self._tokens]
        return batch.deliveries if len(ours) == len(batch.entries) else (await _batch(ours)).deliveries

    async def _work(self, deliveries: list[Delivery]) -> None:
        """Apply and acknowledge, waiting for PostgreSQL as long as it takes, but not when told to stop."""
        if not deliveries:
            return
        self._holding.is_busy = True
        while True:
            try:
                await self._apply(deliveries)
            except Unavailable as error:
                if self._stopping.is_set():
                    return
                await self._pause(self._store.delay_s(error))
            except LeaseLostError as error:
                log.info("fenced_off", group=self._holding.group, error=str(error))
                self._holding.doubt()
                return
            else:
                self._store.well()
                return

    async def _apply(self, deliveries: list[Delivery]) -> None:
        """Apply all in one transaction; if that fails for good, in halves, to set aside only what fails."""
        real = [delivery for delivery in deliveries if delivery.subject]
        tokens = self._leases_of(real)
        try:
            if real:
                await self._effect.apply(real, tokens)
        except (Unavailable, LeaseLostError):
            raise
        except Exception:  # noqa: BLE001 - whatever a handler raises; it is said when it is set aside
            if len(deliveries) > 1:
                middle = len(deliveries) // 2
                await self._apply(deliveries[:middle])
                await self._apply(deliveries[middle:])
                return
            await self._aside.apply(real[0], tokens)
        await self._acknowledged()
        entries = [entry for delivery in deliveries for entry in delivery.entries]
        self._acknowledging = asyncio.create_task(self._acknowledge(entries))
        if not self._ahead:
            await self._acknowledged()

    async def _acknowledge(self, entries: Sequence[Entry]) -> None:
        try:
            await self._group.acknowledge(entries)
        except (Unavailable, GroupGoneError) as error:
            log.debug("not_acknowledged", error=str(error))  # claimed again later, and skipped

    async def _acknowledged(self) -> None:
        """Wait until what had its effect is acknowledged. In a flow the next batch does not wait for that."""
        if self._acknowledging is not None:
            await self._acknowledging
            self._acknowledging = None

    def _leases_of(self, deliveries: Iterable[Delivery]) -> dict[int, int]:
        """The leases that a batch rests on: the shards that its entries came from."""
        shards = {entry.shard for delivery in deliveries for entry in delivery.entries}
        return {shard: self._tokens[shard] for shard in sorted(shards & self._tokens.keys())}

    async def _create(self, redis: Patience) -> None:
        try:
            if await self._group.create():
                log.info("streams_created", group=self._holding.group)
                self._on_loss()
        except Unavailable as error:
            await self._pause(redis.delay_s(error))

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not when told to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
