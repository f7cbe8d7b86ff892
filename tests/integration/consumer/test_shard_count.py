"""The number of shards may change, and groups may come, while events are on their way."""

import asyncio

import pytest

from app.consumer import reconcile
from app.consumer.patience import for_ever
from app.contracts.streams import stream
from app.infra.redis.stream_upkeep import StreamUpkeep
from app.infra.redis.streams import ConsumerGroup, EventStreams
from tests.integration.consumer.readers import nothing_pending, reading, relay


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """The gap job does not wait."""
    monkeypatch.setattr(reconcile, "QUIET_S", 0.0)
    monkeypatch.setattr(reconcile, "SETTLE_S", 0.0)
    monkeypatch.setattr(reconcile, "INTERVAL_S", 0.2)
    monkeypatch.setattr("app.consumer.reader.BLOCK_S", 0.2)


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4)])
async def test_another_number_of_shards_loses_nothing(  # noqa: PLR0917
    orders, database, clients, group, database_url, before, after
):
    """Some of an order's events are in one stream, others in another, and some streams nobody reads."""
    await ConsumerGroup(clients, before, group.name).create()
    placed = [await orders.accept() for _ in range(12)]
    await relay(database_url, EventStreams(clients, before))
    for order in placed[:6]:
        await orders.confirm(order)
    await relay(database_url, EventStreams(clients, after))
    async with reading(database, clients, group, after) as parts:
        for order in placed[6:]:
            await orders.reject(order)
        await relay(database_url, EventStreams(clients, before))
        gap = asyncio.create_task(for_ever("gap", parts.reconciler.run))
        try:
            await orders.caught_up()
        finally:
            gap.cancel()
            await asyncio.gather(gap, return_exceptions=True)


async def test_streams_of_shards_that_are_no_more_are_deleted_when_they_are_old(
    orders, clients, database_url
):
    """Not while somebody may still publish to them, and none of those that there are."""
    await orders.many(24)
    await relay(database_url, EventStreams(clients, 4))
    there = {shard for shard in range(4) if await clients.reads.exists(stream("test", shard))}
    upkeep = StreamUpkeep(clients, 2, ("projections",))
    assert await upkeep.retire(idle_s=600) == 0
    assert await upkeep.retire(idle_s=-10) == len(there - {0, 1})
    assert {shard for shard in range(4) if await clients.reads.exists(stream("test", shard))} == there & {
        0,
        1,
    }


async def test_a_group_that_comes_later_has_what_was_trimmed(
    orders, database, clients, group, streams, database_url
):
    """It begins with what the streams still hold, and the store has the rest."""
    async with reading(database, clients, group):
        await orders.many(8)
        await relay(database_url, streams)
        await nothing_pending(clients)
    await clients.writes.config_set("stream-node-max-entries", 1)
    assert await StreamUpkeep(clients, 4, (group.name,)).trim(keep_s=-10) > 0
    await orders.many(4)
    await relay(database_url, streams)
    later = type(group)("later", group.handlers, group.afterwards, group.needs_orders)
    await database.execute("TRUNCATE daily_summary")  # which is the later group's from now on
    async with reading(database, clients, later) as parts:
        gap = asyncio.create_task(for_ever("gap", parts.reconciler.run))
        try:
            async with asyncio.timeout(60):
                while await orders.summary() != await orders.expected():
                    await asyncio.sleep(0.05)
        finally:
            gap.cancel()
            await asyncio.gather(gap, return_exceptions=True)
    assert await StreamUpkeep(clients, 4, (group.name, "later", "missing")).trim(keep_s=-10) == 0
