"""Redis empty, flushed in the middle, or not there at all: orders are accepted and complete."""

import asyncio
from pathlib import Path

import redis.asyncio

from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack


async def test_orders_complete_while_redis_is_flushed_again_and_again(shop: Shop) -> None:
    """Streams, documents and hints vanish ten times while orders are carried out."""
    await shop.stock("flushed", 100)

    async def flush() -> None:
        async with redis.asyncio.from_url(shop.status["redis"]["url"]) as client:
            for _ in range(10):
                await client.flushall()
                await asyncio.sleep(0.1)

    async def place() -> None:
        for number in range(20):
            assert (await shop.place(f"flushed-{number}", "flushed")).status_code == 202

    await asyncio.gather(flush(), place())
    assert await shop.audit() == {"completed": 20}


async def test_orders_complete_without_any_redis(tmp_path: Path) -> None:
    """A stack of its own, whose Redis is killed and not started again."""
    stack = Stack(tmp_path / "data")
    await stack.up("--no-restart")
    try:
        shop = Shop(await stack.status())
        await stack.kill("redis")
        await shop.stock("without", 100)
        for number in range(10):
            assert (await shop.place(f"without-{number}", "without")).status_code == 202
        assert await shop.audit() == {"completed": 10}
        status = await stack.status()
        assert status["state"] == "degraded"
        assert status["missing"] == ["redis"]
        assert status["not_ready"] == {}, "what cannot be done without it waits; nothing needs it to be ready"
        assert (await shop.http.get("/readyz")).status_code == 200, "the gateway is ready without Redis"
        await shop.close()
    finally:
        await stack.down()
