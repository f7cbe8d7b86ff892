"""Consumer and worker as processes, killed in the middle: every delivery arrives, under its one id."""

import asyncio
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.infra.postgres.pool import Database
from tests.integration.consumer.orders import Orders
from tests.integration.consumer.processes import Consumer
from tests.integration.webhooks.receiver import Receiver, until
from tests.integration.webhooks.world import World
from tests.stack import Temporal


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database of the test's own: the processes handle everything that is in it."""
    database = await Database(database_url, size=10, name="test").open()
    await Orders(database).stock()
    yield database
    await database.close()


class Worker(Consumer):
    """One `MODE=worker python -m app` that starts workflows and sends webhooks."""

    def __init__(self, database_url: str, redis_url: str, temporal: Temporal) -> None:
        super().__init__(database_url, redis_url)
        self.environ |= {
            "MODE": "worker",
            "ENVIRONMENT": "dev",
            "TEMPORAL_ADDRESS": temporal.address,
            "TEMPORAL_NAMESPACE": temporal.namespace,
            "WORKER_QUEUES": "orders,notifications",
            "STRIPE_API_KEY": "sk_test_x",
            "CARRIER_URL": "http://127.0.0.1:9",
        }


@asynccontextmanager
async def running(*processes: Consumer) -> AsyncIterator[None]:
    """Processes that run, and are killed at the end."""
    try:
        for process in processes:
            process.environ["ENVIRONMENT"] = "dev"
            await process.start()
        for process in processes:
            await process.until_live()
        yield
    finally:
        for process in processes:
            await process.close()


@pytest.mark.full
async def test_every_delivery_arrives_though_consumer_and_worker_are_killed(
    world: World, receiver: Receiver, database_url: str, redis_url: str, temporal_server: Temporal
) -> None:
    """At least once, the same body under one id; the worker dies with some in the receiver's hands."""
    _, secret = await world.endpoint(receiver.url)
    consumer = Consumer(database_url, redis_url)
    worker = Worker(database_url, redis_url, temporal_server)
    receiver.may_answer.clear()
    async with running(consumer, worker):
        placing = asyncio.create_task(world.orders.many(12, at_once=2, pause_s=0.1))
        await receiver.until(4)
        in_hand = [got.id for got in receiver.got]
        await worker.end(signal.SIGKILL)
        await consumer.end(signal.SIGKILL)
        receiver.may_answer.set()
        await consumer.start()
        await worker.start()
        await placing
        events = await world.database.fetch("SELECT count(*) AS n FROM events")

        async def all_delivered() -> bool:
            return await world.states() == ["delivered"] * events[0]["n"]

        await until(
            all_delivered, f"{await world.states()}\n{worker.log()[-3000:]}\n{consumer.log()[-3000:]}"
        )
        shown = await worker.metrics()
        assert 'holdfast_webhook_attempts_total{outcome="delivered"}' in shown
        assert "holdfast_webhook_endpoints_left_alone 0.0" in await consumer.metrics()
    came: dict[str, set[bytes]] = defaultdict(set)
    for got in receiver.got:
        came[got.id].add(got.body)
        got.verified(secret)
    assert set(came) == {row["id"] for row in await world.rows()}
    assert all(len(bodies) == 1 for bodies in came.values())
    times = [sum(got.id == one for got in receiver.got) for one in in_hand]
    assert min(times) >= 2, "what was in the receiver's hands when the worker died comes again"
