"""The first stock of a new product is counted before a crowd can ask for it."""

import asyncio

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.infra.redis.gate import Gate
from app.infra.redis.gate_counts import GateCounts
from tests.integration.redis.books import Books

ENVIRONMENT = "new-product"


async def count(client: Client, sku: str) -> bytes | None:
    """What the gate has of a SKU; None where it has no count."""
    look = await GateCounts(client, ENVIRONMENT).begin([sku])
    return None if look is None else look.seen.get(sku) or None


async def test_the_first_stock_of_a_new_product_gets_a_count(valkey) -> None:
    """Long before PostgreSQL is looked at again; only what was there before has to wait for that."""
    async with Client(Address.parse(valkey.url), name="gate") as client:
        assert await client.ready(60)
        async with Gate(client, Books(cup=5), ENVIRONMENT):
            counts = GateCounts(client, ENVIRONMENT)
            async with asyncio.timeout(60):
                while not await counts.are_here():
                    await asyncio.sleep(0.01)
            await counts.add({"jug": 4}, back=False)
            assert await count(client, "jug") == b"4"
            await counts.add({"ghost": -1}, back=False)
            await counts.add({"phantom": 2}, back=True)
            assert await count(client, "ghost") is None, "less of nothing is no count"
            assert await count(client, "phantom") is None, "what was never taken comes back to nothing"
