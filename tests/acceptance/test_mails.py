"""A customer reads in a mailbox what became of an order."""

import asyncio
from typing import Any

import httpx

from tests.acceptance.shop import Shop

HOME = {"name": "Ada", "line1": "1 Main St", "city": "Springfield", "postal_code": "12345", "country": "US"}


async def mailbox(shop: Shop, to: str, *, expected: int) -> list[dict[str, Any]]:
    """The mails to an address, oldest first, once there are so many."""
    async with httpx.AsyncClient() as http, asyncio.timeout(60):
        while True:
            found = (await http.get(shop.status["mails"]["url"], params={"to": to})).json()
            if len(found) >= expected:
                return found[::-1]
            await asyncio.sleep(0.05)


async def test_a_completed_order_is_told_step_by_step(shop: Shop) -> None:
    """Four mails, in order, each once; and none to whoever gave no address."""
    sku, to = f"{shop.customer}-tea", f"{shop.customer}@example.com"
    await shop.stock(sku, 10)
    body = {**shop.body(sku, 2), "shipping_address": {**HOME, "email": to}}
    placed = await shop.http.post("/v1/orders", json=body, headers={"Idempotency-Key": shop.customer})
    assert placed.status_code == 202
    assert to not in placed.text
    order = placed.json()["id"]
    shop.placed[order] = placed.json()
    await shop.settled()
    mails = await mailbox(shop, to, expected=4)
    assert [mail["subject"] for mail in mails] == [
        f"We have your order {order}",
        f"Your order {order} is confirmed",
        f"Your order {order} is on its way",
        f"Your order {order} has arrived",
    ]
    async with httpx.AsyncClient() as http:
        assert f"2 × {sku}: 25.00 USD" in (await http.get(mails[0]["text"])).text
        assert "tracking number <b>SBX" in (await http.get(mails[2]["url"])).text
        assert "You were charged 25.00 USD." in (await http.get(mails[3]["url"])).text
