"""The reader acknowledges only what had its effect; what others left pending it takes over."""

import asyncio
import json
from functools import partial

import msgspec
import pytest
from structlog.testing import capture_logs

from app.consumer import reader as reading_module
from app.consumer.effect import Delivery
from app.contracts.streams import FIELD, stream
from app.infra.redis.stream_upkeep import StreamUpkeep
from app.observability.logging import Rarely
from tests.integration.consumer import readers
from tests.integration.consumer.conftest import SHARDS
from tests.integration.consumer.readers import nothing_pending, reading

ALL = range(SHARDS)


@pytest.fixture
def relay(database_url, streams):
    """Publishes what waits."""
    return partial(readers.relay, database_url, streams)


async def read_as(clients, name: str, count: int = 1000):
    """Read as a consumer of its own name, as earlier releases did."""
    where = {stream("test", shard): ">" for shard in ALL}
    return await clients.writes.xreadgroup("projections", name, where, count=count)


async def test_what_was_applied_but_not_acknowledged_is_skipped_by_the_next(  # noqa: PLR0917
    orders, database, group, effect, consumer, clients, relay
):
    """An owner that dies between commit and XACK leaves its entries to the next, who sees the marks."""
    await orders.many(8)
    await relay()
    await consumer.create()
    entries = await consumer.read(ALL, count=1000, block_s=1)
    events = {}
    for entry in entries:
        event = msgspec.json.decode(entry.body, type=reading_module.Envelope)
        events.setdefault(event.subject, Delivery(event.subject)).add(event, entry)
    half = list(events.values())[: len(events) // 2]
    await effect.apply(half)
    async with reading(database, clients, group):
        await nothing_pending(clients)
    await orders.caught_up()


async def test_what_consumers_of_other_names_hold_is_taken_over(
    orders, database, group, consumer, clients, relay
):
    """An earlier release read under names of its own; its entries are not lost on the way."""
    await orders.many(8)
    await relay()
    await consumer.create()
    assert await read_as(clients, "earlier-release")
    async with reading(database, clients, group):
        await nothing_pending(clients)
    await orders.caught_up()


async def test_what_was_read_ahead_is_applied_once_by_whoever_has_the_shard_then(
    orders, database, group, clients, relay, monkeypatch
):
    """A backlog of many batches, in the middle of which shards change hands twice."""
    for name, size in (("ENTRIES_MAX", 5), ("FULL", 5), ("SMALL", 1), ("BLOCK_S", 0.2)):
        monkeypatch.setattr(reading_module, name, size)
    monkeypatch.setattr(reading_module, "CLAIM_INTERVAL_S", 0.3)
    applied: list[str] = []

    async def remember(batch):
        applied.extend(event.id for event in batch.events)

    watched = msgspec.structs.replace(group, afterwards=(remember,))
    await orders.many(48)
    total = await relay()
    async with reading(database, clients, watched):
        async with asyncio.timeout(60):
            while len(applied) < total // 4:
                await asyncio.sleep(0.005)
        async with reading(database, clients, watched):
            async with asyncio.timeout(60):
                while len(applied) < total // 2:
                    await asyncio.sleep(0.005)
        await nothing_pending(clients)
    await orders.caught_up()
    assert len(applied) == len(set(applied)) == total
    seen: dict[str, int] = {}
    for event in applied:
        subject, _, sequence = event.rpartition(":")
        assert int(sequence) == seen.get(subject, 0) + 1
        seen[subject] = int(sequence)


async def test_large_events_are_taken_a_few_at_a_time(orders, database, group, clients, relay, monkeypatch):
    """A batch has a size in bytes, too, as far as the last one told."""
    monkeypatch.setattr(reading_module, "BATCH_BYTES", 10_000)
    await orders.many(24)
    await relay()
    async with reading(database, clients, group) as parts:
        await nothing_pending(clients)
        assert 1 < parts.reader._count < 10
    await orders.caught_up()


async def test_an_emptied_redis_is_noticed_and_used_again(orders, database, group, clients, relay):
    """Groups are made again from the beginning, and whoever can compare with the store is told."""
    async with reading(database, clients, group) as parts, asyncio.timeout(60):
        lost = parts.reconciler._lost
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
    await orders.caught_up()


async def test_an_entry_that_is_no_event_is_acknowledged(
    orders, database, group, clients, relay, monkeypatch: pytest.MonkeyPatch
):
    """Nonsense in a stream stops nobody: every event is in PostgreSQL. The log says it once."""
    monkeypatch.setattr(reading_module, "_junk", Rarely())  # other tests in this process said it, too
    event = {"id": "x:1", "type": "price.changed.v1", "source": "x", "time": "2026-01-31T12:00:00Z"}
    event |= {"correlationid": "x", "data": {}}
    wrong = [("\0", 1), ("", 1), ("a b", 1), ("cup", 10**30), ("cup", 2**31), ("cup", 0)]
    no_event = [json.dumps(event | {"subject": of, "sequence": number}).encode() for of, number in wrong]
    for body in (b"{", b"\xff", b'{"id":"\xff"}', b"[" * 100_000, *no_event):
        await clients.writes.xadd(stream("test", 0), {FIELD: body})
    await clients.writes.xadd(stream("test", 0), {b"other": b"field"})
    await orders.many(4)
    await relay()
    with capture_logs() as said:
        async with reading(database, clients, group):
            await nothing_pending(clients)
    await orders.caught_up()
    assert [one["event"] for one in said].count("not_an_event") == 1


async def test_only_what_everybody_acknowledged_is_trimmed(orders, consumer, clients, relay):
    """Neither unread nor pending entries are ever dropped, and a missing group stops it all."""
    await orders.many(60)
    total = await relay()
    upkeep = StreamUpkeep(clients, SHARDS, ("projections",))

    async def length() -> int:
        return sum([await clients.reads.xlen(stream("test", shard)) for shard in range(SHARDS)])

    assert await upkeep.trim(keep_s=-10) == 0, "no group yet"
    one = consumer
    await one.create()
    assert await upkeep.trim(keep_s=-10) == 0, "nothing was read"
    entries = await one.read(ALL, count=1000, block_s=1)
    assert len(entries) == total
    assert await upkeep.trim(keep_s=-10) == 0, "nothing was acknowledged"
    held = [entries[-1]]
    await one.acknowledge(entries[:-1])
    await clients.writes.config_set("stream-node-max-entries", 1)
    assert await upkeep.trim(keep_s=3600) == 0, "a recent window is kept"
    await upkeep.trim(keep_s=-10)
    pending, _ = await one.claim(dict.fromkeys(ALL, b"0-0"), idle_s=0, count=100)
    assert [entry.body for entry in pending] == [held[0].body]
    await one.acknowledge(held)
    await upkeep.trim(keep_s=-10)
    assert await length() < total


async def test_a_consumer_that_holds_something_is_never_forgotten(orders, consumer, clients, relay):
    """To forget it would be to forget its entries."""
    await orders.many(2)
    await relay()
    await consumer.create()
    await read_as(clients, "one")
    await read_as(clients, "two", 1)
    upkeep = StreamUpkeep(clients, SHARDS, ("projections",))
    await upkeep.forget_consumers(consumer, "projections", idle_s=0)
    assert await _consumers(clients) == {"one"}
    claimed, rest = await consumer.claim(dict.fromkeys(ALL, b"0-0"), idle_s=0, count=1000)
    assert not rest
    await consumer.acknowledge(claimed)
    await upkeep.forget_consumers(consumer, "projections", idle_s=0)
    assert await _consumers(clients) == {"owner"}


async def _consumers(clients) -> set[str]:
    return {
        info["name"].decode()
        for shard in range(SHARDS)
        for info in await clients.reads.xinfo_consumers(stream("test", shard), "projections")
    }


@pytest.mark.parametrize("entries", [1, 5])
async def test_lag_counts_what_nobody_read(consumer, clients, entries):
    """The measure of how far a group is behind."""
    one = consumer
    await one.create()
    for number in range(entries):
        await clients.writes.xadd(stream("test", number % SHARDS), {FIELD: b"{}"})
    upkeep = StreamUpkeep(clients, SHARDS, ("projections",))
    assert (await upkeep.lag("projections")).unread == entries
    await one.read(ALL, count=100, block_s=0.1)
    lag = await upkeep.lag("projections")
    assert (lag.unread, lag.pending) == (0, entries)
