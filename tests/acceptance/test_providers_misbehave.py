"""Declined cards, silent providers, providers that do the work and never answer."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.acceptance.shop import Shop


async def control(shop: Shop, **faults: Any) -> None:
    """Make the sandbox misbehave; without faults, behave."""
    async with httpx.AsyncClient(base_url=shop.status["sandbox"]["url"]) as http:
        answer = await (http.post("/control", json=faults) if faults else http.delete("/control"))
        assert answer.is_success, answer.text


async def until(shop: Shop, order_id: str, **fields: Any) -> dict[str, Any]:
    """Wait until an order shows these fields."""
    order: dict[str, Any] = {}
    try:
        async with asyncio.timeout(30):
            while True:
                order = await shop.order(order_id)
                if all(order[name] == value for name, value in fields.items()):
                    return order
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"never {fields}: {order}") from None


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ],
)
async def test_a_declined_card_rejects_the_order_with_the_providers_code(
    shop: Shop, method: str, code: str, decline_code: str
) -> None:
    """Nothing stays reserved or authorized."""
    sku = f"declined-{decline_code}"
    await shop.stock(sku, 5)
    order_id = (await shop.place(decline_code, sku, method=method)).json()["id"]
    assert await shop.audit() == {"rejected": 1}
    reason = (await shop.order(order_id))["reason"]
    assert reason["provider_code"] == code
    assert reason["decline_code"] == decline_code


async def test_short_stock_rejects_the_order_naming_the_skus(shop: Shop) -> None:
    """Two wanted, one there."""
    await shop.stock("short", 1)
    order_id = (await shop.place("short", "short", 2)).json()["id"]
    assert await shop.audit() == {"rejected": 1}
    assert (await shop.order(order_id))["reason"]["skus"] == ["short"]


async def test_an_order_waits_for_payments_and_completes_by_itself(shop: Shop) -> None:
    """It says what it waits for while the provider is down."""
    await shop.stock("patient", 5)
    await control(shop, provider="payments", mode="refuse")
    try:
        order_id = (await shop.place("patient", "patient")).json()["id"]
        await until(shop, order_id, waiting_on="payments", status="accepted")
    finally:
        await control(shop)
    await until(shop, order_id, status="completed", waiting_on=None)
    assert await shop.audit() == {"completed": 1}


async def test_a_waiting_order_can_be_cancelled(shop: Shop) -> None:
    """The cancellation does not wait for the step; undoing waits for the provider, if it must."""
    await shop.stock("given-up", 5)
    await control(shop, provider="payments", mode="refuse")
    try:
        order_id = (await shop.place("given-up", "given-up")).json()["id"]
        await until(shop, order_id, waiting_on="payments")
        answer = await shop.http.post(
            f"/v1/orders/{order_id}/cancel",
            json={"reason": "changed my mind"},
            headers={"Idempotency-Key": "g"},
        )
        assert answer.json()["status"] in {"cancelling", "cancelled"}
    finally:
        await control(shop)
    assert await shop.audit() == {"cancelled": 1}


@pytest.mark.parametrize(
    ("then", "calls"), [("close", 12), pytest.param("silence", 2, marks=pytest.mark.full)]
)
async def test_work_that_is_done_and_never_answered_is_charged_once(
    shop: Shop, then: str, calls: int
) -> None:
    """The provider does what it is asked and hangs up, or says nothing for ever."""
    sku = f"lost-{then}"
    await shop.stock(sku, 20)
    await control(shop, provider="payments", mode="lost", then=then, calls=calls)
    try:
        for number in range(5):
            assert (await shop.place(f"{sku}-{number}", sku)).status_code == 202
        assert await shop.audit() == {"completed": 5}
    finally:
        await control(shop)


@pytest.mark.full
async def test_parcels_the_carrier_never_mentions_are_asked_for(shop: Shop) -> None:
    """No webhook comes: the workflow asks by itself."""
    await shop.stock("mute", 5)
    await control(shop, provider="webhooks", mode="mute")
    try:
        order_id = (await shop.place("mute", "mute")).json()["id"]
        await until(shop, order_id, status="dispatched")
        async with asyncio.timeout(60):
            while (await shop.order(order_id))["status"] != "completed":
                await asyncio.sleep(0.5)
    finally:
        await control(shop)
    assert await shop.audit() == {"completed": 1}
