"""A SKU with 50 units and 500 orders: 50 are sold."""

import asyncio

from tests.acceptance.shop import Shop

UNITS = 50
ORDERS = 500


async def test_fifty_units_and_five_hundred_orders_make_fifty_sales(shop: Shop) -> None:
    """The other 450 are refused or rejected, and nothing is left."""
    await shop.stock("scarce", UNITS)
    limit = asyncio.Semaphore(32)

    async def place(number: int) -> int:
        async with limit:
            return (await shop.place(f"scarce-{number}", "scarce")).status_code

    answers = await asyncio.gather(*(place(number) for number in range(ORDERS)))
    assert set(answers) <= {202, 409}
    outcome = await shop.audit()
    assert outcome["completed"] == UNITS
    assert outcome["rejected"] + answers.count(409) == ORDERS - UNITS
    stock = (await shop.http.get("/v1/inventory/scarce")).json()
    assert stock["available"] == 0
    rejected = [o for o in (await shop.orders()).values() if o["status"] == "rejected"]
    assert all(o["reason"]["skus"] == ["scarce"] for o in rejected)
