"""The relay loses nothing, keeps the order of every subject, and waits for Redis as long as it takes."""

import asyncio
import time
from contextlib import asynccontextmanager

import msgspec
import pytest

from app.consumer.patience import for_ever
from app.consumer.relay import Relay
from app.contracts.streams import FIELD, Envelope, shard_of, stream
from app.domain.errors import Unavailable
from app.infra.postgres.event_outbox import open_outbox
from app.infra.redis.clients import open_redis
from app.infra.redis.hints import Hints
from app.infra.redis.streams import EventStreams
from tests.integration.consumer.conftest import SHARDS

SOURCE = "/holdfast/test"


@asynccontextmanager
async def relaying(database_url, clients):
    """A relay that runs for a while."""
    relay = Relay(
        lambda: open_outbox(database_url, SOURCE),
        EventStreams(clients, SHARDS),
        Hints(clients).listen("hint"),
    )
    task = asyncio.create_task(for_ever("relay", relay.run))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def drained(orders) -> None:
    """Wait until no event waits."""
    async with asyncio.timeout(20):
        while await orders.waiting():
            await asyncio.sleep(0.02)


async def published(clients) -> list[Envelope]:
    """Everything in the streams, shard by shard."""
    found = []
    for shard in range(SHARDS):
        for _, fields in await clients.reads.xrange(stream("test", shard)):
            event = msgspec.json.decode(fields[FIELD], type=Envelope)
            assert shard_of(event.subject, SHARDS) == shard
            found.append(event)
    return found


async def test_every_event_is_published_once_and_in_the_order_of_its_subject(database_url, orders, clients):
    """What is in the log of record is in the streams, attribute for attribute."""
    async with relaying(database_url, clients):
        await orders.many(20)
        await drained(orders)
    rows = await orders.database.fetch("SELECT * FROM events")
    events = await published(clients)
    assert len(events) == len(rows)
    by_id = {event.id: event for event in events}
    for row in rows:
        event = by_id[f"{row['subject']}:{row['sequence']}"]
        assert event.type == row["type"]
        assert event.correlationid == row["correlation_id"]
        assert bytes(event.data).decode() == row["data"]
    seen: dict[str, int] = {}
    for event in events:
        assert event.sequence == seen.get(event.subject, 0) + 1
        seen[event.subject] = event.sequence


async def test_a_transaction_that_commits_late_is_not_skipped(database_url, orders, clients, database):
    """Positions are taken in one order and committed in another."""
    async with relaying(database_url, clients):
        async with database.connection() as connection:
            late = connection.transaction()
            await late.start()
            await connection.execute(
                "INSERT INTO events (subject, sequence, type, time, correlation_id, data, hash) "
                "VALUES ('late', 1, 'price.changed.v1', now(), 'c', '{}', '')"
            )
            await connection.execute("INSERT INTO event_outbox (subject, sequence) VALUES ('late', 1)")
            order = await orders.accept()
            await drained(orders)
            assert order.id in {event.subject for event in await published(clients)}
            assert "late" not in {event.subject for event in await published(clients)}
            await late.commit()
        await drained(orders)
    assert "late" in {event.subject for event in await published(clients)}


async def test_what_was_published_but_not_deleted_is_published_again(database_url, orders, streams, clients):
    """A relay that dies between the stream's answer and the delete leaves the rows to the next."""
    order = await orders.accept()
    async with open_outbox(database_url, SOURCE) as outbox:
        assert await outbox.lead()
        batch = await outbox.waiting(10)
        await streams.publish([event.envelope for event in batch.events])
    async with relaying(database_url, clients):
        await drained(orders)
    assert [event.id for event in await published(clients)].count(f"{order.id}:1") == 2


async def test_a_leader_that_stands_still_is_replaced(database_url):
    """The server gives up who says nothing; who has only nothing to ask says so."""
    async with open_outbox(database_url, SOURCE) as first, open_outbox(database_url, SOURCE) as second:
        assert await first.lead()
        staying = asyncio.create_task(first.stay())
        until = time.monotonic() + 1.6
        while time.monotonic() < until:
            assert not await second.lead()
            await asyncio.sleep(0.2)
        staying.cancel()
        async with asyncio.timeout(2):
            while not await second.lead():
                await asyncio.sleep(0.05)
        with pytest.raises(Unavailable):
            await first.waiting(1)


async def test_one_leads_and_another_takes_over(database_url):
    """The lead ends with the connection, however that ended."""
    async with open_outbox(database_url, SOURCE) as second:
        async with open_outbox(database_url, SOURCE) as first:
            assert await first.lead()
            assert not await second.lead()
        assert await second.lead()


async def test_a_redis_without_memory_is_waited_for(database_url, orders, clients):
    """Refused events stay in PostgreSQL, and none of a shard overtakes another."""
    await clients.writes.config_set("maxmemory", 1)
    try:
        async with relaying(database_url, clients):
            await orders.many(4)
            waiting = await orders.waiting()
            assert waiting > 4
            await asyncio.sleep(0.3)
            assert await orders.waiting() == waiting
            await clients.writes.config_set("maxmemory", 0)
            await drained(orders)
    finally:
        await clients.writes.config_set("maxmemory", 0)
    seen: dict[str, int] = {}
    for event in await published(clients):
        assert event.sequence <= seen.get(event.subject, 0) + 1
        seen[event.subject] = max(event.sequence, seen.get(event.subject, 0))


async def test_behind_a_refused_event_nothing_of_its_shard_counts(orders, streams, clients, database_url):
    """A stream that refuses one entry and takes the next must not put them out of order."""
    for _ in range(8):
        await orders.accept()
    async with open_outbox(database_url, SOURCE) as outbox:
        batch = await outbox.waiting(100)
    envelopes = [event.envelope for event in batch.events]
    shards = [shard_of(envelope.subject, SHARDS) for envelope in envelopes]
    broken = shards[0]
    await clients.writes.set(stream("test", broken), b"not a stream")
    assert await streams.publish(envelopes) == [shard != broken for shard in shards]
    assert {shard_of(e.subject, SHARDS) for e in await _others(clients, broken)} == set(shards) - {broken}


async def _others(clients, broken):
    found = []
    for shard in set(range(SHARDS)) - {broken}:
        entries = await clients.reads.xrange(stream("test", shard))
        found += [msgspec.json.decode(fields[FIELD], type=Envelope) for _, fields in entries]
    return found


async def test_a_hint_is_quicker_than_the_poll(database_url, orders, clients):
    """From commit to stream takes milliseconds when somebody says so."""
    async with relaying(database_url, clients):
        await orders.accept()
        await drained(orders)
        hints = Hints(clients)
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(10):
            order = await orders.accept()
            started = loop.time()
            hints.publish("hint")
            key = stream("test", shard_of(order.id, SHARDS))
            async with asyncio.timeout(5):
                while not await clients.reads.xlen(key) or await orders.waiting():
                    await asyncio.sleep(0.001)
            times.append(loop.time() - started)
    assert sorted(times)[5] < 0.1


async def test_redis_may_be_away_at_the_start(database_url, orders, redis_url):
    """The relay leads, waits and goes on by itself."""
    async with (
        open_redis("redis://127.0.0.1:1/0", None, "test", "gone") as gone,
        relaying(database_url, gone),
    ):
        await orders.accept()
        await asyncio.sleep(0.3)
        assert await orders.waiting()
    async with open_redis(redis_url, None, "test", "here") as here, relaying(database_url, here):
        await drained(orders)


async def test_a_stream_that_was_overwritten_is_made_again(database_url, orders, clients):
    """Nobody else need do anything, and the other shards go on meanwhile."""
    for shard in range(0, SHARDS, 2):
        await clients.writes.set(stream("test", shard), "not a stream")
    async with relaying(database_url, clients):
        await orders.many(60)  # so many that every shard has some: ids, and so shards, are random
        await drained(orders)
    rows = await orders.database.fetch("SELECT 1 FROM events")
    assert len(await published(clients)) >= len(rows)
