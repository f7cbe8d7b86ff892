"""What the tests of cached orders do with them: open them as a gateway does, read, change, wait."""

import asyncio
from contextlib import asynccontextmanager

from app.gateway.cached_orders import CachedOrders
from app.infra.postgres.orders import PostgresOrders
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from tests.integration.gateway.served import NOBODY
from tests.integration.postgres.shop import Shop


@asynccontextmanager
async def gateway(shop, redis_url):
    """One gateway's cached orders."""
    async with open_redis(redis_url, None, "test", "gateway") as clients:
        cached = CachedOrders(PostgresOrders(shop.database), Documents(clients, "test"))
        if redis_url != NOBODY:
            assert await clients.hot.ready(60)
            assert await cached._near.client.ready(60)
        yield cached
        await cached.close()


async def until(is_so, timeout_s: float = 60) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.002)


async def brought_near(cached: CachedOrders, order_id: str):
    """Read until it is near."""
    async with asyncio.timeout(60):
        while (record := cached.near(order_id)) is None:
            await cached.read(order_id)
            await asyncio.sleep(0.002)
    return record


async def change(shop: Shop, order_id: str, *, status: str = "accepted") -> int:
    """Change an order in PostgreSQL, behind everybody's back; its new version."""
    statement = "UPDATE orders SET version = version + 1, status = $2, updated_at = now() WHERE id = $1"
    await shop.database.execute(statement, order_id, status)
    return (await shop.orders.load(order_id)).version
