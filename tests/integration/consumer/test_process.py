"""The consumer as a process: killed, stopped, without Redis, without PostgreSQL, beside another one."""

import asyncio
import os
import random
import signal

import httpx
import pytest

from app.contracts.streams import stream
from app.dev.servers import EmbeddedPostgres
from app.domain.errors import Unavailable
from app.infra.postgres.migrate import migrate
from app.infra.postgres.pool import Database
from app.infra.redis.clients import open_redis
from tests.integration.consumer.afterwards import all_is_well
from tests.integration.consumer.conftest import SHARDS
from tests.integration.consumer.orders import GROUPS, Orders
from tests.integration.consumer.processes import HASTY, SHUTDOWN_TIMEOUT_S, TELLING, Consumer, running
from tests.servers import redis_in


async def test_sigterm_ends_it_in_order(database_url, redis_url, orders):
    """Exit code 0, at once, with everything it held handed back."""
    async with running(database_url, redis_url) as consumer:
        await consumer.until_live("/readyz")
        await orders.many(20)
        assert await consumer.end() == 0
        assert "leading" in consumer.log()
    async with running(database_url, redis_url):
        await orders.all_caught_up()


@pytest.mark.full
async def test_two_consumers_that_are_killed_at_random_lose_and_double_nothing(
    database_url, redis_url, orders
):
    """Whatever moment a process dies in, the summary is right to the piece afterwards."""
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    dice = random.Random(seed)
    consumers = [Consumer(database_url, redis_url) for _ in range(2)]
    for consumer in consumers:
        await consumer.start()
    placing = asyncio.create_task(orders.many(200, at_once=2, pause_s=0.05))
    try:
        while not placing.done():
            await asyncio.sleep(dice.uniform(0.3, 0.9))
            victim = dice.choice(consumers)
            await victim.end(signal.SIGKILL)
            await victim.start()
        await placing
        await orders.all_caught_up(timeout_s=45)
    finally:
        placing.cancel()
        for consumer in consumers:
            await consumer.close()


@pytest.mark.usefixtures("listeners")
async def test_a_redis_flushed_in_the_middle_costs_nothing(database_url, redis_url, orders):
    """What the streams lost is found by comparing orders with marks."""
    async with running(database_url, redis_url, ("-c", HASTY), **TELLING) as consumer:
        await consumer.until_live("/readyz")
        placing = asyncio.create_task(orders.many(60, at_once=2, pause_s=0.03))
        async with open_redis(redis_url, None, "test", "flush") as clients:
            while not placing.done():
                await asyncio.sleep(0.15)
                await clients.writes.flushall()
        await placing
        await all_is_well(orders, database_url, timeout_s=60)


@pytest.mark.full
async def test_streams_that_were_overwritten_are_made_again(database_url, redis_url, orders):
    """A key of ours that is no stream any more stops neither relay nor reader, and costs no event."""
    async with running(database_url, redis_url, ("-c", HASTY)) as consumer:
        await consumer.until_live("/readyz")
        placing = asyncio.create_task(orders.many(60, at_once=2, pause_s=0.03))
        async with open_redis(redis_url, None, "test", "overwrite") as clients:
            while not placing.done():
                for shard in range(SHARDS):
                    await clients.writes.set(stream("test", shard), "not a stream")
                await asyncio.sleep(0.3)
        await placing
        await orders.all_caught_up(timeout_s=60)
        assert await orders.waiting() == 0
        await consumer.until_live("/readyz")
        assert "Traceback" not in consumer.log()
        assert await consumer.end() == 0


async def test_sigterm_ends_it_at_any_moment(database_url, redis_url, orders):
    """While it starts, reads, publishes or does nothing: within the timeout, and with 0."""
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    dice = random.Random(seed)
    tries = int(os.environ.get("HOLDFAST_SIGTERM_TRIES", "4"))
    placing = asyncio.create_task(orders.many(tries * 20, at_once=1, pause_s=0.05))
    try:
        for _ in range(tries):
            async with running(database_url, redis_url) as consumer:
                await consumer.until_live()
                await asyncio.sleep(dice.uniform(0, 0.8))
                async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                    assert await consumer.end() == 0, consumer.log()
    finally:
        placing.cancel()
        await asyncio.gather(placing, return_exceptions=True)


async def test_readiness_says_that_reader_and_relay_run(database_url, redis_url, orders):
    """Servers that answer are not enough."""
    async with running(database_url, redis_url) as consumer, httpx.AsyncClient() as http:
        await consumer.until_live("/readyz")
        account = (await http.get(f"http://127.0.0.1:{consumer.port}/readyz")).json()
    assert account["checks"] == {"postgres": "ok", "redis": "ok", "reader": "ok", "relay": "ok"}


async def test_redis_away_and_back(database_url, orders, tmp_path):
    """Away at the start, back, killed, back: it goes on by itself and says each change once."""
    redis = redis_in(tmp_path / "redis")
    async with running(database_url, redis.url, ("-c", HASTY)) as consumer:
        await consumer.until_live()
        await orders.many(4)
        await redis.start()
        try:
            await orders.all_caught_up()
            await consumer.until_live("/readyz")
            await redis.kill()
            await orders.many(4)
            await asyncio.sleep(1)
            await redis.start()
            await orders.all_caught_up()
            await consumer.until_live("/readyz")  # the gap job needs no Redis, and may have been first
            assert "holdfast_redis_up 1.0" in await consumer.metrics()
            said = [line for line in consumer.log().splitlines() if "event_applied" not in line]
            # Every part says when it begins to wait and when it goes on: not a line for every attempt.
            assert len(said) < 80, said  # four groups and a relay, and two outages
            assert await consumer.end() == 0
        finally:
            await redis.stop()


async def test_postgresql_away_and_back(redis_url, tmp_path):
    """The same with PostgreSQL; nothing that was read is lost while it is away."""
    postgres = EmbeddedPostgres(tmp_path / "postgres", follow=signal.SIGQUIT)
    await postgres.prepare()
    async with running(postgres.dsn, redis_url) as consumer:
        await consumer.until_live()
        await postgres.start()
        database = await Database(postgres.dsn, size=5, name="test").open()
        try:
            await migrate(postgres.dsn)
            orders = Orders(database)
            await orders.stock()
            await orders.many(4)
            await orders.all_caught_up()
            await postgres.kill()
            with pytest.raises(Unavailable):
                await orders.behind()
            await asyncio.sleep(0.5)
            await postgres.start()
            await orders.many(4)
            await orders.all_caught_up()
            assert await consumer.end() == 0
        finally:
            await database.close()
            await postgres.stop()


async def test_a_waiting_consumer_can_be_stopped(tmp_path):
    """With neither server there, SIGTERM still ends it at once."""
    consumer = Consumer("postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1/0")
    await consumer.start()
    try:
        await consumer.until_live()
        async with asyncio.timeout(60):
            assert await consumer.end() == 0
    finally:
        await consumer.close()


async def test_answers_that_outlived_their_time_are_forgotten(database_url, redis_url, orders, database):
    """The relay's leader deletes them; younger ones stay."""
    await orders.accept()
    await orders.accept()
    await database.execute(
        "UPDATE idempotency SET created_at = now() - interval '31 days' WHERE key LIKE 'key-1-%'"
    )
    async with running(database_url, redis_url):
        async with asyncio.timeout(15):
            while len(await database.fetch("SELECT 1 FROM idempotency")) != 1:
                await asyncio.sleep(0.05)


async def test_it_measures(database_url, redis_url, orders):
    """Orders by status, time to confirm, open orders, lag, age of the outbox."""
    async with running(database_url, redis_url) as consumer:
        await consumer.until_live("/readyz")
        await orders.many(8)
        await orders.all_caught_up()
        text = await consumer.metrics()
    assert 'holdfast_orders_total{status="accepted"} 8.0' in text
    assert 'holdfast_orders_total{status="completed"} 4.0' in text
    assert "holdfast_order_confirm_seconds_count 4.0" in text
    for name in ("holdfast_outbox_age_seconds", "holdfast_open_orders"):
        assert name in text
    for name in ("holdfast_stream_lag", "holdfast_stream_oldest_pending_seconds", "holdfast_dlq_events"):
        for group in GROUPS:
            assert f'{name}{{group="{group}"}}' in text


async def test_a_taken_port_is_one_line():
    """It names the setting, and nothing is left running."""
    consumer = Consumer("postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1/0")
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", consumer.port)
    await consumer.start()
    try:
        assert consumer.process is not None
        async with asyncio.timeout(15):
            assert await consumer.process.wait() == 1
        line = f"holdfast: HEALTH_PORT {consumer.port} cannot be listened on: Address already in use\n"
        assert consumer.log() == line
    finally:
        taken.close()
        await consumer.close()
