"""The document of a final order whose price was mended is written in the end, though Redis was away."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from msgspec.structs import replace

from app.consumer.projections import Applied, write_documents
from app.contracts.documents import encode_order
from app.contracts.event_examples import ENVELOPES
from app.domain import events as e
from app.domain.commands import RepriceOrder
from app.domain.money import Money
from app.domain.order import Order
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from bench.history import Kind, put
from tests.servers import redis_in

LINES = (("cup", 2, 700),)


async def test_consumers_write_it_with_the_next_ones(database: Database, database_url: str, tmp_path: Path):
    """What Redis has of it would otherwise be read for an hour."""
    mended, other = await put(database_url, [Kind(LINES), Kind(LINES)], until=datetime.now(UTC))
    orders = PostgresOrders(database)
    redis = redis_in(tmp_path)
    await redis.start()
    try:
        async with open_redis(redis.url, None, "test", "test") as clients:
            documents = Documents(clients, "test")
            write = write_documents(documents)
            await documents.put(await orders.load(mended))
            order = await orders.record(
                mended, RepriceOrder("rpl_1", "march", {"cup": Money(650, "USD")}, 1400, 1300)
            )
            assert isinstance(order, Order)
            await redis.kill()
            event = ENVELOPES[e.OrderRepriced]
            await write(Applied((replace(event, subject=mended),), {mended: order}, monotonic()))
            await redis.start()
            async with asyncio.timeout(15):
                while not clients.hot.is_up:
                    await asyncio.sleep(0.05)
            await write(Applied((), {other: await orders.load(other)}, monotonic()))
            assert await documents.get(mended) == encode_order(order)
    finally:
        await redis.stop()
