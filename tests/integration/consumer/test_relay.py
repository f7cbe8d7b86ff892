"""The relay loses nothing, keeps the order of every subject, and waits for Redis as long as it takes."""

import asyncio
import itertools
import random
import statistics
import time
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from app.consumer.leases import Leases
from app.consumer.patience import for_ever
from app.consumer.relay import Relay, lease_group
from app.contracts.streams import FIELD, Envelope, relay_fence, shard_of, stream
from app.infra.postgres.backlog import ages
from app.infra.postgres.event_outbox import open_outbox
from app.infra.postgres.leases import ShardLeases
from app.infra.redis.clients import open_redis
from app.infra.redis.hints import Hints
from app.infra.redis.streams import EventStreams
from app.infra.tasks import end
from tests.integration.consumer.conftest import SHARDS

SOURCE = "/holdfast/test"
_numbers = itertools.count(1)
OWNERS = "SELECT owner FROM shard_leases WHERE consumer_group = $1 ORDER BY shard"


@asynccontextmanager
async def relaying(database_url, clients, database, *chores, leaves=True):
    """A relay that runs for a while, with leases of its own; its name."""
    group, name = lease_group(SHARDS), f"relay-{next(_numbers)}"
    leases = Leases(ShardLeases(database, name, [group], SHARDS), [group], SHARDS)
    relay = Relay(
        lambda: open_outbox(database_url, SOURCE),
        EventStreams(clients, SHARDS),
        Hints(clients).listen("hint"),
        leases.holdings[group],
        *chores,
    )
    works = {"leases": leases.run, "relay": relay.run}
    tasks = [asyncio.create_task(for_ever(part, work)) for part, work in works.items()]
    try:
        yield name
    finally:
        await end(tasks, within_s=5)
        if leaves:
            await leases.leave()


async def drained(orders) -> None:
    """Wait until no event waits."""
    async with asyncio.timeout(60):
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


async def test_every_event_is_published_once_and_in_the_order_of_its_subject(
    database_url, orders, clients, database
):
    """What is in the log of record is in the streams, attribute for attribute."""
    async with relaying(database_url, clients, database):
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
    async with relaying(database_url, clients, database):
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


async def test_what_was_published_but_not_deleted_is_published_again(
    database_url, orders, streams, clients, database
):
    """A relay that dies between the stream's answer and the delete leaves the rows to the next."""
    order = await orders.accept()
    async with open_outbox(database_url, SOURCE) as outbox:
        batch = await outbox.waiting(10)
        await streams.publish([event.envelope for event in batch.events])
    async with relaying(database_url, clients, database):
        await drained(orders)
    assert [event.id for event in await published(clients)].count(f"{order.id}:1") == 2


@pytest.mark.parametrize("relays", [1, 2, 4])
async def test_every_shard_has_one_relay_and_each_relay_a_fair_share(database_url, clients, database, relays):
    """However many there are."""
    async with AsyncExitStack() as stack:
        names = {
            await stack.enter_async_context(relaying(database_url, clients, database)) for _ in range(relays)
        }
        await until_shared(database, names)


async def until_shared(database, names) -> None:
    """Wait until these have all shards, and fair shares."""
    share = -(-SHARDS // len(names))
    async with asyncio.timeout(60):
        while True:
            rows = await database.fetch(OWNERS, lease_group(SHARDS))
            owners = [row["owner"] for row in rows]
            if set(owners) == set(names) and max(owners.count(name) for name in names) <= share:
                return
            await asyncio.sleep(0.02)


async def test_the_shards_of_a_relay_that_dies_are_published_within_two_seconds(
    database_url, orders, clients, database
):
    """It says nothing any more; the limit is generous."""
    async with relaying(database_url, clients, database) as one:
        async with relaying(database_url, clients, database, leaves=False) as two:
            await until_shared(database, {one, two})
        died = time.monotonic()
        await orders.many(12)
        await drained(orders)
        took_s = time.monotonic() - died
        print(f"published after {took_s:.2f} s")
        assert took_s < 4


async def test_relays_that_share_publish_each_event_once_and_in_order(
    database_url, orders, clients, database
):
    """Each has other shards, and nobody publishes what is another's."""
    async with (
        relaying(database_url, clients, database) as one,
        relaying(database_url, clients, database) as two,
    ):
        await until_shared(database, {one, two})
        await orders.many(30)
        await drained(orders)
    events = await published(clients)
    assert len(events) == len(await database.fetch("SELECT 1 FROM events"))
    seen: dict[str, int] = {}
    for event in events:
        assert event.sequence == seen.get(event.subject, 0) + 1
        seen[event.subject] = event.sequence


async def test_a_stream_refuses_who_lost_its_lease(database_url, orders, clients, streams, database):
    """A relay that stood still and goes on publishes nothing behind the next one's back."""
    order = await orders.accept()
    async with open_outbox(database_url, SOURCE) as outbox:
        batch = await outbox.waiting(1, shards=[shard_of(order.id, SHARDS)], of=SHARDS)
    envelopes = [event.envelope for event in batch.events]
    shard = shard_of(envelopes[0].subject, SHARDS)
    assert await streams.publish(envelopes, {shard: 8}) == [True]
    assert await streams.publish(envelopes, {shard: 7}) == [False]
    assert await streams.publish(envelopes, {shard: 8}) == [True]
    assert len(await published(clients)) == 2


async def test_the_outbox_shares_out_as_everybody_does(database_url, orders, database):
    """PostgreSQL and Python compute the same shard, also of a subject that is not ASCII."""
    await orders.many(12)
    await database.execute("INSERT INTO event_outbox (subject, sequence) SELECT 'Größe-ß', 1")
    await database.execute(
        "INSERT INTO events (subject, sequence, type, time, correlation_id, data, hash) "
        "VALUES ('Größe-ß', 1, 'price.changed.v1', now(), 'c', '{}', '')"
    )
    async with open_outbox(database_url, SOURCE) as outbox:
        everything = [event.envelope.subject for event in (await outbox.waiting(1000)).events]
        for shards in (1, 3, 4):
            for shard in range(shards):
                batch = await outbox.waiting(1000, shards=[shard], of=shards)
                found = [event.envelope.subject for event in batch.events]
                assert found == [subject for subject in everything if shard_of(subject, shards) == shard]


async def test_one_does_the_chores(database_url, clients, database):
    """Whoever has the first shard; when it leaves, another does them."""
    done: list[str] = []

    def chore(name):
        async def run(patience):
            done.append(name)
            await asyncio.Event().wait()

        return run

    async with relaying(database_url, clients, database, chore("one")) as one:
        await until_shared(database, {one})
        async with relaying(database_url, clients, database, chore("two")) as two:
            await until_shared(database, {one, two})
            assert len(done) == 1
        await until_shared(database, {one})
    assert set(done) <= {"one", "two"}
    assert done[0] == "one"


async def test_a_redis_without_memory_is_waited_for(database_url, orders, clients, database):
    """Refused events stay in PostgreSQL, and none of a shard overtakes another."""
    await clients.writes.config_set("maxmemory", 1)
    try:
        async with relaying(database_url, clients, database):
            await orders.many(4)
            waiting = await orders.waiting()
            assert waiting > 4
            before = await _scripts(clients)
            until = time.monotonic() + 0.6
            while time.monotonic() < until:  # whatever is hinted at
                Hints(clients).publish("hint")
                await asyncio.sleep(0.01)
            assert await _scripts(clients) - before < 10 * SHARDS
            assert await orders.waiting() == waiting
            assert {r.labels: r.value for r in await ages(database)}["events",] > 0.3
            await clients.writes.config_set("maxmemory", 0)
            await drained(orders)
    finally:
        await clients.writes.config_set("maxmemory", 0)
    seen: dict[str, int] = {}
    for event in await published(clients):
        assert event.sequence <= seen.get(event.subject, 0) + 1
        seen[event.subject] = max(event.sequence, seen.get(event.subject, 0))


async def _scripts(clients) -> int:
    stats = await clients.reads.info("commandstats")
    return sum(
        stats.get(f"cmdstat_{name}", {}).get(count, 0)
        for name in ("eval", "evalsha")
        for count in ("calls", "rejected_calls")
    )


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


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.full)])
async def test_from_commit_to_stream_takes_milliseconds_when_it_is_quiet(
    database_url, orders, clients, database, count
):
    """Twenty orders a second, at any moment; the limit is generous, the figures are printed."""
    async with relaying(database_url, clients, database) as one:
        await until_shared(database, {one})
        hints, dice = Hints(clients), random.Random(11)
        took_ms = []
        for _ in range(count):
            order = await orders.accept()
            committed = time.time()
            hints.publish("hint")
            await asyncio.sleep(dice.expovariate(1 / 0.05))
            took_ms.append((order.id, committed * 1000))
        await drained(orders)
    appended = {}
    for shard in range(SHARDS):
        for entry_id, fields in await clients.reads.xrange(stream("test", shard)):
            event = msgspec.json.decode(fields[FIELD], type=Envelope)
            appended[event.subject] = int(entry_id.split(b"-")[0])
    delays = sorted(appended[name] - at for name, at in took_ms)
    p99 = delays[min(len(delays) - 1, int(len(delays) * 0.99))]
    print(f"commit to stream: p50 {statistics.median(delays):.1f} ms, p99 {p99:.1f} ms, {count} orders")
    assert statistics.median(delays) < 100
    assert p99 < 500


async def test_redis_may_be_away_at_the_start(database_url, orders, redis_url, database):
    """The relay leads, waits and goes on by itself."""
    async with (
        open_redis("redis://127.0.0.1:1/0", None, "test", "gone") as gone,
        relaying(database_url, gone, database),
    ):
        await orders.accept()
        await asyncio.sleep(0.3)
        assert await orders.waiting()
    async with open_redis(redis_url, None, "test", "here") as here, relaying(database_url, here, database):
        await drained(orders)


async def test_a_stream_that_was_overwritten_is_made_again(database_url, orders, clients, database):
    """Nobody else need do anything, and the other shards go on meanwhile."""
    for shard in range(0, SHARDS, 2):
        await clients.writes.set(stream("test", shard), "not a stream")
    async with relaying(database_url, clients, database):
        await orders.many(60)  # so many that every shard has some: ids, and so shards, are random
        await drained(orders)
    rows = await orders.database.fetch("SELECT 1 FROM events")
    assert len(await published(clients)) >= len(rows)


async def test_a_fence_of_another_past_is_outgrown(database_url, orders, clients, database):
    """PostgreSQL was put back: Redis has seen tokens that are yet to be given out."""
    for shard in range(SHARDS):
        await clients.writes.set(relay_fence("test", shard, SHARDS), 1_000_000)
    async with relaying(database_url, clients, database):
        await orders.many(12)
        await drained(orders)
    assert len(await published(clients)) == len(await orders.database.fetch("SELECT 1 FROM events"))
    assert (
        min([int(await clients.reads.get(relay_fence("test", n, SHARDS))) for n in range(SHARDS)]) < 1_000_000
    )
