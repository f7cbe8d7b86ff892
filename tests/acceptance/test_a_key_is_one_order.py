"""One Idempotency-Key is one order, however often and however hard it is sent."""

import asyncio

from tests.acceptance.shop import Shop


async def test_the_same_key_a_hundred_times_at_once_is_one_order(shop: Shop) -> None:
    """Every answer is the first one, byte for byte; a 409 in between is allowed."""
    await shop.stock("once", 1000)
    body = {
        "customer_id": shop.customer,
        "currency": "USD",
        "lines": [{"sku": "once", "quantity": 1}],
        "payment_method": "pm_card_visa",
    }
    headers = {"Idempotency-Key": "a-hundred-times"}
    answers = await asyncio.gather(
        *(shop.http.post("/v1/orders", json=body, headers=headers) for _ in range(100))
    )
    accepted = [a for a in answers if a.status_code == 202]
    assert accepted
    assert all(a.status_code in {202, 409} for a in answers)
    assert len({a.content for a in accepted}) == 1
    assert sum("Idempotent-Replayed" not in a.headers for a in accepted) == 1
    shop.placed[accepted[0].json()["id"]] = accepted[0].json()
    assert await shop.audit() == {"completed": 1}


async def test_the_same_key_with_another_body_is_refused(shop: Shop) -> None:
    """422, and the first order is not touched."""
    await shop.stock("once-too", 1000)
    first = await shop.place("another-body", "once-too", 1)
    assert first.status_code == 202
    assert (await shop.place("another-body", "once-too", 2)).status_code == 422
    assert await shop.audit() == {"completed": 1}


async def test_two_customers_of_one_moment_do_not_share_a_key_with_other_routes(shop: Shop) -> None:
    """A key belongs to its route: the same key on another route is another request."""
    await shop.stock("route", 1000)
    assert (await shop.place("shared", "route")).status_code == 202
    order_id = next(iter(shop.placed))
    answer = await shop.http.post(
        f"/v1/orders/{order_id}/cancel", json={}, headers={"Idempotency-Key": "shared"}
    )
    assert answer.status_code in {200, 409}
    assert "Idempotent-Replayed" not in answer.headers
    await shop.audit()
