"""The reader acknowledges only what had its effect, and holds back only what fails."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from app.consumer import reader as reading
from app.consumer.effect import Delivery, Effect
from app.consumer.reader import Reader
from app.contracts.streams import FIELD, stream
from app.infra.postgres.event_outbox import open_outbox
from app.infra.redis.stream_upkeep import StreamUpkeep
from tests.integration.consumer.conftest import SHARDS


@pytest.fixture
def relay(database_url, streams):
    """Publishes what waits, as a relay does; how many events."""

    async def relay() -> int:
        async with open_outbox(database_url, "/holdfast/test") as outbox:
            batch = await outbox.waiting(100_000)
            await streams.publish([event.envelope for event in batch.events])
            await outbox.published(batch.events)
            return len(batch.events)

    return relay


@asynccontextmanager
async def reads(consumer, effect):
    """A reader that runs for a while."""
    reader = Reader(consumer, effect, asyncio.Queue[Delivery](), on_loss=lambda: None)
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        reader.stop()
        async with asyncio.timeout(5):
            await task


async def nothing_pending(clients, *, but: int = 0) -> None:
    """Wait until the group has acknowledged everything but so many entries."""
    upkeep = StreamUpkeep(clients, SHARDS, ("projections",))
    async with asyncio.timeout(15):
        while True:
            lag = await upkeep.lag("projections")
            if lag.unread == 0 and lag.pending == but:
                return
            await asyncio.sleep(0.02)


async def test_what_was_applied_but_not_acknowledged_is_skipped_by_the_next(
    orders, effect, consumer, clients, relay, monkeypatch
):
    """A consumer that dies between commit and XACK leaves its entries to the living, who see the marks."""
    monkeypatch.setattr(reading, "CLAIM_IDLE_S", 0.2)
    monkeypatch.setattr(reading, "CLAIM_INTERVAL_S", 0.1)
    await orders.many(8)
    await relay()
    dead = consumer("dead")
    await dead.create()
    entries = await dead.read(count=1000, block_s=1)
    events = {}
    for entry in entries:
        event = msgspec.json.decode(entry.body, type=reading.Envelope)
        events.setdefault(event.subject, Delivery(event.subject)).add(event, entry)
    half = list(events.values())[: len(events) // 2]
    await effect.apply(half)
    async with reads(consumer("alive"), effect):
        await nothing_pending(clients)
    await orders.caught_up()


async def test_an_emptied_redis_is_noticed_and_used_again(orders, effect, consumer, clients, relay):
    """Groups are made again from the beginning, and whoever can compare with the store is told."""
    lost = asyncio.Event()
    reader = Reader(consumer("one"), effect, asyncio.Queue[Delivery](), on_loss=lost.set)
    task = asyncio.create_task(reader.run())
    async with asyncio.timeout(10):
        await lost.wait()
        lost.clear()
        await orders.many(4)
        await relay()
        await nothing_pending(clients)
        await clients.writes.flushall()
        await lost.wait()
        await orders.many(4)
        await relay()
        await nothing_pending(clients)
        reader.stop()
        await task
    await orders.caught_up()


async def test_a_failing_handler_holds_back_only_its_subject(
    orders, effect, consumer, clients, relay, monkeypatch
):
    """The others go on; it is tried again until it works, and stays unacknowledged until then."""
    monkeypatch.setattr("app.consumer.holds.FIRST_S", 0.05)
    monkeypatch.setattr("app.consumer.holds.LONGEST_S", 0.2)
    monkeypatch.setattr(reading, "BLOCK_S", 0.1)
    bad = await orders.accept()
    broken = True

    def fails(event, changes):
        if broken and event.subject == bad.id:
            raise RuntimeError("cannot")

    group = effect._group
    table = {**group.handlers, "order.accepted.v1": (*group.handlers["order.accepted.v1"], fails)}
    effect = Effect(msgspec.structs.replace(group, handlers=table), effect._store)
    async with reads(consumer("one"), effect):
        await orders.many(8)
        bad = await orders.complete(bad)
        await relay()
        await nothing_pending(clients, but=bad.version)
        assert await orders.behind() == 1
        broken = False
        await nothing_pending(clients)
    await orders.caught_up()


async def test_an_entry_that_is_no_event_is_acknowledged(orders, effect, consumer, clients, relay):
    """Nonsense in a stream stops nobody: every event is in PostgreSQL."""
    await clients.writes.xadd(stream("test", 0), {FIELD: b"{"})
    await clients.writes.xadd(stream("test", 0), {b"other": b"field"})
    await orders.many(4)
    await relay()
    async with reads(consumer("one"), effect):
        await nothing_pending(clients)
    await orders.caught_up()


async def test_a_stopped_reader_hands_back_and_is_forgotten(orders, effect, consumer, clients, relay):
    """Nothing is pending for it afterwards, and the group does not know it any more."""
    await orders.many(4)
    async with reads(consumer("one"), effect):
        await relay()
        await orders.caught_up()
        await nothing_pending(clients)
    for shard in range(SHARDS):
        assert await clients.reads.xinfo_consumers(stream("test", shard), "projections") == []


async def test_only_what_everybody_acknowledged_is_trimmed(orders, consumer, clients, relay):
    """Neither unread nor pending entries are ever dropped, and a missing group stops it all."""
    await orders.many(60)
    total = await relay()
    upkeep = StreamUpkeep(clients, SHARDS, ("projections",))

    async def length() -> int:
        return sum([await clients.reads.xlen(stream("test", shard)) for shard in range(SHARDS)])

    assert await upkeep.trim(keep_s=-10) == 0, "no group yet"
    one = consumer("one")
    await one.create()
    assert await upkeep.trim(keep_s=-10) == 0, "nothing was read"
    entries = await one.read(count=1000, block_s=1)
    assert len(entries) == total
    assert await upkeep.trim(keep_s=-10) == 0, "nothing was acknowledged"
    held = [entries[-1]]
    await one.acknowledge(entries[:-1])
    await clients.writes.config_set("stream-node-max-entries", 1)
    assert await upkeep.trim(keep_s=3600) == 0, "a recent window is kept"
    await upkeep.trim(keep_s=-10)
    pending = await one.pending(count=100)
    assert [entry.body for entry in pending] == [held[0].body]
    await one.acknowledge(held)
    await upkeep.trim(keep_s=-10)
    assert await length() < total


async def test_a_consumer_that_holds_something_is_never_forgotten(orders, consumer, clients, relay):
    """To forget it would be to forget its entries."""
    await orders.many(2)
    await relay()
    one, two = consumer("one"), consumer("two")
    await one.create()
    entries = await one.read(count=1000, block_s=1)
    await two.read(count=1, block_s=0.01)
    upkeep = StreamUpkeep(clients, SHARDS, ("projections",))
    await upkeep.forget_consumers(two, "projections", idle_s=0)
    names = await _consumers(clients)
    assert "two" not in names
    assert "one" in names
    assert len(await one.pending(count=1000)) == len(entries)
    await one.acknowledge(entries)
    await upkeep.forget_consumers(two, "projections", idle_s=0)
    assert await _consumers(clients) == set()


async def _consumers(clients) -> set[str]:
    return {
        info["name"].decode()
        for shard in range(SHARDS)
        for info in await clients.reads.xinfo_consumers(stream("test", shard), "projections")
    }


@pytest.mark.parametrize("entries", [1, 5])
async def test_lag_counts_what_nobody_read(consumer, clients, entries):
    """The measure of how far a group is behind."""
    one = consumer("one")
    await one.create()
    for number in range(entries):
        await clients.writes.xadd(stream("test", number % SHARDS), {FIELD: b"{}"})
    upkeep = StreamUpkeep(clients, SHARDS, ("projections",))
    assert (await upkeep.lag("projections")).unread == entries
    await one.read(count=100, block_s=0.1)
    lag = await upkeep.lag("projections")
    assert (lag.unread, lag.pending) == (0, entries)
