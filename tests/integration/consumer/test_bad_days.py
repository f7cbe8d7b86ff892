"""Bad days of the event backbone, with every group at work: afterwards all is as if nothing had been."""

import asyncio
import contextlib
import random
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.dev.servers import EmbeddedValkey
from app.domain.chain import link
from app.infra.postgres.dead_letters import OPEN, DeadLetters
from app.infra.postgres.pool import Database
from tests.integration.consumer.afterwards import all_is_well
from tests.integration.consumer.orders import GROUPS, Orders
from tests.integration.consumer.processes import HASTY, TELLING, Consumer, running
from tests.servers import redis_in

DOUBLED = """
INSERT INTO event_outbox (subject, sequence)
SELECT subject, sequence FROM events, generate_series(1, $1) WHERE random() < $2 ORDER BY random()
"""
"""What was published already is published again, out of order."""

pytestmark = pytest.mark.usefixtures("listeners")

UPGRADED = """
import sys
import msgspec
from app.consumer import run
made = run.groups
def groups(*given, **named):
    known = made(*given, **named)
    return tuple(msgspec.structs.replace(g, handlers={{**g.handlers, {kind!r}: ()}}) for g in known)
run.groups = groups
from app.__main__ import main
sys.exit(main())
"""
"""A consumer of the release that knows a type."""


@asynccontextmanager
async def placing(orders: Orders, pause_s: float) -> AsyncIterator[None]:
    """Orders come in, two at a time, whatever happens meanwhile; all of them are there at the end."""
    is_over = asyncio.Event()

    async def place() -> None:
        while not is_over.is_set():
            await orders.many(4, at_once=2, pause_s=pause_s)

    task = asyncio.create_task(place())
    try:
        yield
        is_over.set()
        await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def durable_redis(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A Redis that keeps its append-only file."""
    redis = redis_in(tmp_path / "redis", settings={"appendonly": "yes"})
    await redis.start()
    yield redis
    await redis.stop()


async def test_a_redis_put_back_to_an_older_state_costs_nothing(
    database_url: str, orders: Orders, durable_redis: EmbeddedValkey, tmp_path: Path
) -> None:
    """Its streams tell again what was done long ago, and lack what was published since and read by nobody."""
    files, old = durable_redis.place / "appendonlydir", tmp_path / "old"
    async with running(database_url, durable_redis.url, ("-c", HASTY), **TELLING) as consumer:
        await consumer.until_live("/readyz")
        async with placing(orders, pause_s=0.06):
            await asyncio.sleep(0.3)
            await durable_redis.stop()
            shutil.copytree(files, old)
            await durable_redis.start()
            await asyncio.sleep(0.5)
        await durable_redis.stop()
        await orders.many(8)
        await orders.database.execute("DELETE FROM event_outbox")  # as when Redis had just taken them
        shutil.rmtree(files)
        shutil.copytree(old, files)
        await durable_redis.start()
        await orders.many(4)
        await all_is_well(orders, database_url)
        assert await orders.waiting() == 0
        assert "Traceback" not in consumer.log()


async def test_events_come_ten_times_and_late_while_owners_stand_still_and_die(
    database_url: str, redis_url: str, orders: Orders, seed: int
) -> None:
    """SIGSTOP past the lease, then SIGCONT; kill -9; all the while the past is published again and again."""
    dice = random.Random(seed)
    consumers = [Consumer(database_url, redis_url, ("-c", HASTY), **TELLING) for _ in range(2)]
    try:
        for consumer in consumers:
            await consumer.start()
        for consumer in consumers:
            await consumer.until_live("/readyz")
        async with placing(orders, pause_s=0.06):
            still, dies = dice.sample(consumers, 2)
            await asyncio.sleep(dice.uniform(0.3, 0.6))
            still.process.send_signal(signal.SIGSTOP)
            await orders.database.execute(DOUBLED, 9, 0.5)
            await asyncio.sleep(1.7)
            still.process.send_signal(signal.SIGCONT)
            await asyncio.sleep(dice.uniform(0.0, 0.3))
            await dies.end(signal.SIGKILL)
            await orders.database.execute(DOUBLED, 9, 0.2)
            await dies.start()
        await all_is_well(orders, database_url)
    finally:
        for consumer in consumers:
            if consumer.process is not None:
                await consumer.close()


@pytest.mark.full
async def test_a_redis_without_memory_keeps_nobody_from_the_rest(
    database_url: str, redis_url: str, orders: Orders, clients
) -> None:
    """Orders go on, events wait in PostgreSQL, what was published is handled; then everything goes on."""
    async with running(database_url, redis_url, **TELLING) as consumer:
        await consumer.until_live("/readyz")
        try:
            async with placing(orders, pause_s=0.03):
                await asyncio.sleep(0.1)
                await clients.hot.execute("CONFIG", "SET", "maxmemory", 1)
                await asyncio.sleep(0.3)
            assert await orders.waiting() > 0
            await consumer.until_live("/readyz")
        finally:
            await clients.hot.execute("CONFIG", "SET", "maxmemory", 0)
        await all_is_well(orders, database_url)
        assert "Traceback" not in consumer.log()


@pytest.mark.full
@pytest.mark.parametrize("kind", ["order.reviewed.v7", "order.dispatched.v9"])
async def test_what_a_newer_release_wrote_is_set_aside_and_handled_after_the_upgrade(
    database_url: str, redis_url: str, orders: Orders, kind: str
) -> None:
    """In every group, with all that follows it for the order; nothing else waits, and nobody says a word."""
    letters = DeadLetters(orders.database)
    order = await orders.accept()
    await write_unknown(orders.database, order.id, kind)
    async with running(database_url, redis_url, ("-c", HASTY), **TELLING) as older:
        await orders.complete(order)
        await orders.many(4)
        async with asyncio.timeout(60):
            while len(await letters.page(0, 10, states=(OPEN,))) < len(GROUPS):
                await asyncio.sleep(0.05)
            while await orders.behind() > 1:
                await asyncio.sleep(0.05)
        found = await letters.page(0, 10)
        assert {(letter.subject, letter.type, letter.kind) for letter in found} == {
            (order.id, kind, "unknown")
        }
        assert await older.end() == 0
    async with running(database_url, redis_url, ("-c", UPGRADED.format(kind=kind)), **TELLING):
        await all_is_well(orders, database_url)
    assert {letter.state for letter in await letters.page(0, 10)} == {"handled"}


async def write_unknown(database: Database, order_id: str, kind: str) -> None:
    """Put the next event of an order on record as a release would that knows more than this one."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            "SELECT version, last_hash, clock_timestamp() AS at FROM orders WHERE id = $1 FOR UPDATE",
            order_id,
        )
        place = (order_id, row["version"] + 1, kind, row["at"], "corr", None, '{"stars":5}')
        hashed = link(row["last_hash"], *place)
        await connection.execute(
            "INSERT INTO events (subject, sequence, type, time, correlation_id, traceparent, data,"
            " previous_hash, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            *place, row["last_hash"], hashed,
        )  # fmt: skip
        await connection.execute("INSERT INTO event_outbox (subject, sequence) VALUES ($1, $2)", *place[:2])
        await connection.execute(
            "UPDATE orders SET version = $2, last_hash = $3 WHERE id = $1", *place[:2], hashed
        )


@pytest.mark.full
@pytest.mark.timeout(240)
async def test_redis_is_away_for_a_minute_while_orders_come_in(
    database_url: str, orders: Orders, durable_redis: EmbeddedValkey
) -> None:
    """With a kill of the server at the beginning, and of a consumer in the middle."""
    url = durable_redis.url
    async with running(database_url, url, **TELLING) as one, running(database_url, url, **TELLING):
        await one.until_live("/readyz")
        async with placing(orders, pause_s=0.12):
            await asyncio.sleep(2)
            await durable_redis.kill()
            await asyncio.sleep(30)
            await one.end(signal.SIGKILL)
            await one.start()
            await asyncio.sleep(30)
            await durable_redis.start()
        await all_is_well(orders, database_url, timeout_s=90)
