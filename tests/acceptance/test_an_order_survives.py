"""kill -9 of every part, in the middle of orders being accepted: nothing is lost, nothing is doubled."""

import asyncio

import pytest

from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack

ORDERS = 24
PARTS = ("gateway", "worker", "consumer", "postgres", "redis", "temporal", "sandbox")


@pytest.mark.parametrize("part", PARTS)
async def test_every_accepted_order_reaches_one_end_when_a_part_is_killed(
    stack: Stack, shop: Shop, part: str
) -> None:
    """The part is killed after a third and after two thirds of the orders; the stack mends itself."""
    sku = f"survivor-{part}"
    await shop.stock(sku, 10 * ORDERS)
    limit = asyncio.Semaphore(8)

    async def place(number: int) -> int:
        async with limit:
            method = "pm_card_chargeDeclined" if number % 10 == 9 else "pm_card_visa"
            return (await shop.place(f"{part}-{number}", sku, 1 + number % 3, method)).status_code

    placing = [asyncio.create_task(place(number)) for number in range(ORDERS)]
    for share in (1 / 3, 2 / 3):
        while sum(task.done() for task in placing) < ORDERS * share:
            await asyncio.wait([t for t in placing if not t.done()], return_when=asyncio.FIRST_COMPLETED)
        await stack.kill(part)
        if share < 1 / 2:
            await stack.until_ready()
    assert set(await asyncio.gather(*placing)) == {202}
    await stack.until_ready()
    outcome = await shop.audit()
    assert outcome == {"completed": ORDERS - ORDERS // 10, "rejected": ORDERS // 10}
