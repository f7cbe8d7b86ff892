"""Every key in Redis says which environment it is of: a user may be kept to that, others see it by that."""

import asyncio
import re
from contextlib import suppress

import redis.asyncio

from tests.acceptance.shop import Shop

FORMS = {
    "marker": r"environment",
    "stream": r"events:\d",
    "relay's fence": r"relay:\{",
    "document": r"\{ord_\w+\}:document",
    "limit": r"\{[^}]+\}:limit:",
    "stored answer": r"\{[^}]+\}:answer:",
    "gate": r"\{gate\}:",
}
"""Keys that an order leaves behind for at least a moment: what comes after the prefix."""


async def test_all_keys_and_channels_start_with_the_environment(shop: Shop) -> None:
    """While orders are placed, carried out and read: whatever is seen at any moment."""
    seen: set[str] = set()
    sku = f"{shop.customer}-key"
    await shop.stock(sku, 10)
    async with redis.asyncio.from_url(shop.status["redis"]["url"], decode_responses=True) as client:
        watching = asyncio.create_task(_watch(client, seen))
        try:
            placed = await shop.place(shop.customer, sku)
            await shop.settled()
            with suppress(TimeoutError):
                async with asyncio.timeout(30):
                    while _missing(seen) and not watching.done():
                        await shop.order(placed.json()["id"])
        finally:
            watching.cancel()
    assert [name for name in sorted(seen) if not name.startswith("hf:dev:")] == []
    assert _missing(seen) == []


def _missing(seen: set[str]) -> list[str]:
    return [what for what, form in FORMS.items() if not any(re.match(f"hf:dev:{form}", s) for s in seen)]


async def _watch(client: redis.asyncio.Redis, seen: set[str]) -> None:
    while True:
        seen.update(await client.keys("*"))
        seen.update(await client.pubsub_channels())
        await asyncio.sleep(0.01)
